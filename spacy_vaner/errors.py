"""Every message that the package gives to its users, numbered.

A message says what happened, with which value, and what to do about it. Each part of the package
has a range of numbers: 0xx settings and component, 1xx backbone, 2xx corpora, 3xx training and
reader, 4xx evaluation, 7xx annotation.
"""

from __future__ import annotations


class VanerError(ValueError):
    """An error that a user can mend: a setting, a file, a missing package."""


class VanerWarning(UserWarning):
    """Something was skipped, widened or replaced; said once per cause."""


class Messages:
    """Templates for str.format; `python -m spacy vaner` and the library use the same ones."""

    # 0xx: settings and component
    VE010 = (
        "VE010: window: overlap = {overlap} must be at least 0 and less than n_words = {n_words}."
    )
    VE011 = (
        "VE011: the instruction template {template!r} must contain the fields {fields} in braces "
        "and no others. Write {{{{ for a brace."
    )
    VE012 = (
        "VE012: model.max_subwords = {max_subwords} leaves no room for text. Set it to 16 or more; "
        "256 to 512 serve well."
    )
    VE013 = (
        "VE013: n_process > 1 does not work with vaner_ner on CUDA. Use n_process=1 there, or set "
        'components.vaner_ner.device = "cpu".'
    )
    VE014 = (
        "VE014: the instruction for type {type!r} has {n_instruction} subwords; with "
        "model.max_subwords = {max_subwords} of text that is more than the {max_positions} that "
        "the backbone reads. Lower model.max_subwords, shorten the instruction, or raise the "
        "backbone's max_positions (small_llama)."
    )
    VE015 = (
        'VE015: doc.user_data["vaner"] of the document {text!r} is not as docs/formats.md says: '
        "{error}. Convert the corpus anew with `python -m spacy vaner convert`."
    )
    VE016 = "VE016: batch_subwords = {batch_subwords} must be 1 or more; 4096 is the default."
    VE017 = (
        "VE017: vaner_ner has no weights yet: load a trained pipeline with spacy.load, or train "
        "one (`python -m spacy train`, or nlp.initialize and nlp.update)."
    )
    VE018 = (
        "VE018: no training document is annotated for any of the types {types}; they are annotated "
        "for {annotated}. Set components.vaner_ner.types to types that the corpora have."
    )
    VW018 = (
        "VW018: no training document is annotated for {types} (they are for {annotated}). These "
        "types will not be learned; set components.vaner_ner.types to the others, or add a corpus."
    )
    VE019 = (
        "VE019: the two sides of a training example have different texts ({text!r} …). Make the "
        "predicted Doc from the text of the reference."
    )
    VE020 = (
        "VE020: {path} does not hold a saved vaner_ner component (no cfg.json). Load the whole "
        "pipeline's folder with spacy.load."
    )
    VE021 = "VE021: types = {types!r} must be a list with at least one type."
    VE022 = (
        'VE022: {name!r} can\'t be the name of a type: it must be text without ":", "=", line '
        "breaks and outer blanks (they do not survive a config file)."
    )
    VE023 = (
        "VE023: {file} of the saved component is damaged: {error}. Save the pipeline again, or "
        "copy all files."
    )
    VE024 = (
        "VE024: without an adapter all parameters of the backbone are trained, and in {dtype} "
        'small updates would be lost. Set model.backbone.dtype = "float32", or give model.adapter.'
    )
    VE025 = (
        "VE025: this optimiser needs CuPy to train on CUDA. Set training.optimizer to "
        '@optimizers = "spacy-vaner.AdamW.v1", which needs nothing more, or install '
        "spacy_vaner[cuda] and call spacy.require_gpu() (or --gpu-id 0), or set "
        'components.vaner_ner.device = "cpu".'
    )
    VE026 = "VE026: {name} = {value!r} is not possible; it must be one of: {choices}."
    VE027 = (
        "VE027: threshold = {threshold!r} must be a probability, 0 to 1, a table from type to "
        "probability, or null."
    )
    VW019 = (
        "VW019: the first training documents have entities with labels that are no type of the "
        "component: {labels}. They are read as no entity. Add them to "
        "components.vaner_ner.types, or name their types in label_map."
    )
    VE030 = (
        "VE030: {name} knows no setting {unknown} per call; it takes {known}. Other settings are "
        "attributes of the component, e.g. nlp.get_pipe({name!r}).threshold = 0.5."
    )
    VE031 = (
        "VE031: there is an adapter for {types} already. Remove it first: remove_adapter({known})."
    )
    VE032 = (
        "VE032: there is no adapter for just the types {types}. There are adapters for: {known}."
    )
    VE033 = (
        "VE033: initialize makes new weights, but there are adapters (for {types}) that belong to "
        "other ones. To train a further adapter, load or source the trained pipeline and do not "
        "initialise it (docs/adapters.md); else set components.vaner_ner.adapters = []."
    )
    VE034 = (
        "VE034: nothing can be trained: the tagger is frozen beneath its adapters (for {types}), "
        "and so are they. Set adapter.trainable = True on one of ner.adapters, add one with "
        "add_adapter, or remove them all."
    )
    VE035 = (
        "VE035: adapters = {adapters!r} must be a list of tables with the keys types (a list) and "
        'path, e.g. [{{"types": ["Anatomy"], "path": "anatomy"}}].'
    )
    VE036 = (
        "VE036: the adapter {where} was trained under the instruction {trained!r}; the component "
        "asks with {asked!r}. Set model.instruction to the one that it was trained under."
    )
    VE037 = (
        "VE037: the adapter {where} is for the types {found}; `adapters` in the config says "
        "{expected}. Name the types of the adapter there, or the folder of another one."
    )
    VE038 = (
        "VE038: there is no vaner_ner component {name!r} in the pipeline ({known}). Set "
        "`component` of spacy-vaner.add_adapter.v1 to its name."
    )
    VE039 = (
        "VE039: asking = '{asking}', but the weights were trained for asking = '{trained}'. Set "
        "asking = '{trained}', or initialize and train anew."
    )
    VE040 = "VE040: question_width = {question_width} must be 1 or more."
    VE042 = (
        "VE042: repeat_threshold = {repeat_threshold!r} must be a probability, 0 to 1, or null: "
        "then a name is marked only where it is found."
    )
    VW041 = (
        "VW041: {types} is new to the tagger, which was trained for {known}. It is asked all the "
        "same; expect little before it is trained (docs/new-type.md)."
    )
    VW030 = (
        "VW030: {setting} names {unknown}, which is asked nowhere, while it does not name "
        "{missing}. Is it spelled as in components.vaner_ner.types?"
    )
    VW010 = (
        "VW010: the span getter left out text ({n} subwords in this document). It is read in "
        "windows of its own."
    )
    VW011 = (
        "VW011: out of memory with {n_rows} rows in a batch; it is halved. Lower "
        "components.vaner_ner.batch_subwords to avoid this."
    )

    # backbone
    VE101 = "VE101: {key} = {value!r} is not possible; it has to be {expected}."
    VE102 = "VE102: the description of the {what} cannot be read: {error}."
    VE103 = "VE103: device = {value!r} is not known. Use auto, cpu, cuda or cuda:1."
    VE104 = (
        "VE104: device = {value!r} is not there: torch sees {n_devices} CUDA devices. Set device "
        'to "auto" or "cpu", or install a torch with CUDA.'
    )
    VE105 = "VE105: precision = {value!r} is not known. Use auto, fp32 or bf16."
    VE106 = (
        "VE106: the backbone {backbone} does not read text in both directions with "
        "attn_implementation = {attn_implementation!r} and transformers {version}: {faults}. Try "
        "the other attn_implementation (eager or sdpa), or another version of transformers."
    )
    VE107 = (
        "VE107: the backbone {backbone} cannot be read with a mask from lengths ({error}). "
        "Decoders with LLaMA's interface work (LLaMA, Mistral, Qwen), and encoders of the BERT, "
        "RoBERTa, ELECTRA, DistilBERT, DeBERTa and ModernBERT kinds; set `model.backbone.name` to "
        "one."
    )
    VE108 = (
        'VE108: engine = "onnx" needs onnx and onnxruntime. Install the extra [onnx], or set '
        "engine to auto or torch."
    )
    VE109 = (
        'VE109: engine = "onnx" runs a tagger that stores a plain LLaMA, without LoRA over all '
        "types, on the CPU; this one is {backbone} on {device}. Set engine to auto or torch."
    )
    VW108 = (
        "VW108: ONNX Runtime does not compute what torch computes with this tagger on this machine "
        "({error}); torch is used. Set engine to torch to do without this check."
    )
    VE110 = "VE110: the tokenizer's {file} cannot be read: {error}"
    VE111 = (
        "VE111: there is no {file} in {where}. Make a tokenizer with "
        "`python -m spacy vaner tokenizer`, or save one with transformers."
    )
    VE112 = (
        "VE112: vocab_size = {vocab_size} leaves no room beside {n_fixed} special tokens and "
        "bytes. Choose 1000 or more."
    )
    VE113 = "VE113: the texts to train a tokenizer on are empty."
    VE114 = (
        "VE114: {folder} is there already and is not a tokenizer's folder. Choose another output."
    )
    VE115 = (
        "VE115: {path}: a tokenizer is trained on .spacy files or on .txt files in UTF-8 ({error})."
    )
    VE120 = (
        "VE120: the backbone {name!r} is no folder here and cannot be had from the hub ({error}). "
        "Set `model.backbone.name` to the folder that holds it. For a name on the hub: go online "
        "once, or copy the hub's cache from where `hf download NAME` was run (a gated model also "
        "needs `hf auth login`)."
    )
    VE121 = (
        "VE121: {folder} holds no weights as safetensors (model.safetensors or its index). Other "
        "forms are not read, since they can run code: load the model with transformers and save it "
        "again with `save_pretrained(…, safe_serialization=True)`."
    )
    VE122 = "VE122: {path} is missing or damaged: {error}. Get the backbone's files again."
    VE123 = (
        "VE123: transformers cannot load the backbone in {folder}: {error}. Code that comes with "
        "a model is never run."
    )
    VE124 = (
        "VE124: the backbone in {folder} lacks {n_missing} weights, the first is {first!r}. "
        "Get its files again."
    )
    VE125 = (
        "VE125: the tokenizer has {n_tokens} subwords, the backbone embeds {n_rows}: they do not "
        "belong together. Use the tokenizer that came with the backbone."
    )
    VE126 = (
        "VE126: a SmallLlama needs a tokenizer: set `model.backbone.tokenizer_path` to a folder "
        "made by `python -m spacy vaner tokenizer`, or initialise with texts to train one on."
    )
    VE127 = (
        "VE127: `model.adapter.targets` = {targets} does not fit the backbone ({error}). "
        'Use "all-linear", or names of its linear layers.'
    )
    VE130 = "VE130: the saved tagger has no {file}. Save the pipeline again, or copy all files."
    VE131 = (
        "VE131: {file} of the saved tagger is damaged: {error} is missing or wrong. Save the "
        "pipeline again, or copy all files."
    )
    VE132 = (
        "VE132: the tagger was saved in format {version}, this version of spacy_vaner reads "
        "{known}. Install the version that saved it."
    )
    VE133 = (
        "VE133: {file} is damaged: its hash is not the one in {described_in}. Copy both files "
        "again from where the tagger was saved."
    )
    VE134 = "VE134: {file} cannot be read as safetensors: {error}. Copy it again."
    VE135 = (
        "VE135: {file} does not fit {described_in}: {n_wrong} tensors differ, e.g. {first}. Keep "
        "the files of one tagger together; another rank or other targets need their own weights."
    )
    VE136 = (
        "VE136: the backbone in {folder} is not the one that the tagger was trained on: its "
        "{parts} differ. Set `model.backbone.name` (and `revision`) to the original one."
    )
    VE137 = (
        "VE137: tokenizer.json is not the tokenizer that the tagger was saved with. Copy it again "
        "from where the tagger was saved."
    )

    # word features of a small backbone
    VE140 = (
        "VE140: {path} holds no word vectors: {error}. Make the file with "
        "`python -m spacy_vaner.training vectors`."
    )
    VE142 = (
        "VE142: {path} holds no lexicon: {error}. Make the file with "
        "`python -m spacy_vaner.training lexicon`."
    )
    VE143 = (
        "VE143: lexicon is given, and the backbone has no word features, which it is a part of. "
        "Set lexicon to null, or take a backbone with word features (word_rows)."
    )
    VE141 = (
        "VE141: config.json declares word features that cannot be read: {error}. Another version "
        "of spacy_vaner may have written it."
    )

    # quantised backbones, and what a backbone must be
    VE151 = (
        "VE151: model.backbone.quantization needs bitsandbytes ({error}). Install it with "
        "pip install 'spacy_vaner[quantization]', or set quantization = null."
    )
    VE152 = (
        "VE152: a backbone with quantization = {quantization!r} is frozen, so there is nothing to "
        "train without an adapter. Give model.adapter (spacy-vaner.lora.v1), or set "
        "model.backbone.quantization = null."
    )
    VE153 = (
        "VE153: the weights in {folder} are quantised already ({method}). Take the backbone's "
        "original weights and set model.backbone.quantization instead."
    )
    VE154 = (
        "VE154: the backbone {backbone} caps its attention scores, which "
        'attn_implementation = "sdpa" leaves out, so its states would be others than in its '
        'pretraining. Set model.backbone.attn_implementation = "eager".'
    )
    VE155 = (
        "VE155: the backbone {backbone} cannot save memory by gradient checkpointing. Set "
        "model.backbone.gradient_checkpointing = false."
    )
    VE156 = (
        "VE156: {folder} holds an adapter saved by PEFT, no backbone. Set `model.backbone.name` to "
        "the model that it was trained on ({base}). To use the adapter itself: "
        "`python -m spacy vaner import-adapter`."
    )
    VW151 = (
        "VW151: the tagger was saved with model.backbone.quantization = {saved!r} and is loaded "
        "with {now!r}, as the config asks: its predictions are not the same. Evaluate it again, or "
        "set quantization back."
    )

    # encoders, and checkpoints of other programs
    VE160 = (
        "VE160: backbones of the kind {model_type} have no sdpa attention in transformers "
        '{version}. Set `model.backbone.attn_implementation = "eager"`.'
    )
    VE161 = (
        "VE161: {folder} is a pipeline of spacy-transformers, which keeps its weights in a pickle. "
        "Save its model as a folder for transformers, as docs/import.md shows, and name that."
    )
    VE162 = (
        "VE162: {folder} holds no {file}, so there is no adapter to import.{more} What is read is "
        "a folder that a training run with PEFT left."
    )
    VE163 = "VE163: {path} cannot be read: {error}. Get the file again from where it was trained."
    VE164 = "VE164: {path} cannot be imported: found {found}, supported is {expected}."
    VE165 = (
        "VE165: {path} does not belong to its {config}: {name} has rank {found}, the config says "
        "r = {rank}. Keep the files of one checkpoint together."
    )
    VE166 = (
        "VE166: {path} holds no head ({names}), so nothing says what the states mean. Train with "
        "task_type TOKEN_CLS, or with the head among modules_to_save."
    )
    VE167 = (
        "VE167: {path} labels with {n_labels} columns, taken for: {names}. It takes three, one "
        "each of O, B and I (or B-Type and I-Type). Give their order with --labels, e.g. "
        "--labels I,O,B; a head with more types cannot be imported."
    )
    VE168 = (
        "VE168: {path} does not fit the backbone {backbone}: {reason}. It was trained on {base}: "
        "name that, or an equal copy, with --backbone."
    )
    VE169 = "VE169: {output} is there already. Name another output."
    VE170 = (
        "VE170: a checkpoint of LS-LLaMA has no instruction to ask for several types with, and "
        "knows one: {types}. Name it with --types."
    )

    # adapters over a frozen tagger
    VE180 = (
        "VE180: the adapter's `targets` name {missing}, and no linear layer of the backbone is "
        'called so. Use "all-linear", or some of: {known}.'
    )
    VE181 = (
        "VE181: {where} does not hold an adapter (no {file}). An adapter's folder is what "
        "save_adapter wrote; copy all of it."
    )
    VE182 = "VE182: adapter.json of {where} cannot be read: {error}. Copy the adapter again."
    VE183 = (
        "VE183: the adapter {where} was trained over another tagger (fingerprint {base}…) than "
        "this one ({found}…) and would give wrong results. Load the pipeline that it was trained "
        "over, or train it anew over this one."
    )
    VE184 = (
        "VE184: the weights of the adapter {where} do not fit its description or the backbone: "
        "{n_wrong} tensors differ, e.g. {first}. Copy the adapter again."
    )
    VE185 = "VE185: adapter.safetensors of {where} is damaged: {error}. Copy the adapter again."

    VE190 = (
        "VE190: there is no pretrained tagger {name!r} in this version of spacy_vaner (it has: "
        "{known}), and no folder of one. Set model.backbone.name to one that is there, or "
        "model.backbone to spacy-vaner.small_llama.v1 and train."
    )
    VE191 = (
        "VE191: {path} of a pretrained tagger is damaged: {error}. Install spacy_vaner again, or "
        "copy the whole folder again."
    )
    VE192 = (
        "VE192: the pretrained tagger in {folder} is of format {version}, this version of "
        "spacy_vaner reads {known}. Install a newer spacy_vaner."
    )
    VE193 = (
        "VE193: {path} of a pretrained tagger is missing or damaged: {error}. Install spacy_vaner "
        "again, or copy the whole folder again."
    )
    VE194 = (
        "VE194: {folder} is there already and holds no pretrained tagger. Choose another output."
    )
    VE195 = "VE195: the pipeline {pipeline} cannot be shipped: {reason}."
    VE196 = "VE196: {path} is not what a card is made of: {reason}."

    # evaluation
    VE401 = "VE401: there is no matching '{matching}'. Use one of: {known}."
    VE402 = (
        "VE402: {path} is not a .spacy file (a DocBin): {reason}. Corpora are converted with "
        "`python -m spacy vaner convert`."
    )
    VE403 = (
        "VE403: no document of {path} says that it is annotated completely for any type, and none "
        "has entities, so there is nothing to score. Is it a file of predictions or of raw text? "
        "Convert the corpus again with `python -m spacy vaner convert`."
    )
    VE404 = (
        "VE404: {path}, document {number}: its annotation (`doc.user_data['vaner']`) cannot be "
        "read: {reason}. The form that is expected is described in docs/formats.md."
    )
    VE405 = "VE405: there is no file or folder {path}."
    VE407 = "VE407: the pipeline {pipeline} cannot be loaded: {reason}"
    VE408 = (
        "VE408: the pipeline ({components}) predicts no entities: it has neither a vaner_ner "
        "component nor another one that sets doc.ents. Evaluate a pipeline with one of them."
    )
    VE409 = (
        "VE409: '{pair}' in the label map is not LABEL=Type. Write for instance "
        "--label-map DISEASE=Disease,CHEMICAL=Chemical."
    )
    VE410 = "VE410: the GPU {gpu_id} cannot be used: {reason}. Leave --gpu-id out to use the CPU."
    VE411 = "VE411: there is no view '{view}'. Use one of: {known}."
    VE412 = "VE412: no file to evaluate on was given."
    VE413 = "VE413: the file with code {path} cannot be imported: {reason}"
    VE440 = (
        "VE440: two systems are compared on the same documents, but the first has {first} and the "
        "second {second}. Predict the same files with both."
    )
    VE441 = (
        "VE441: {path}, line {line}: this is no line of predictions ({reason}). The form is "
        "described in docs/evaluation.md; `annotate --to jsonl` and `analyse --pipeline` write it."
    )
    VE442 = (
        "VE442: {path} has no line for {n} of the gold documents, the first is {first}. Texts must "
        "be the same to the character: predict the same files."
    )
    VE443 = (
        "VE443: drawing the reliability plot needs matplotlib ({reason}). Install it with "
        "pip install matplotlib."
    )
    VE444 = (
        "VE444: the other system has {second} documents, this one {first}, or their texts differ. "
        "Predict the same files with both."
    )
    VE445 = "VE445: {problem} See python -m spacy vaner {command} --help."
    VE446 = (
        "VE446: the pipeline ({components}) has {n} vaner_ner components; thresholds are fitted "
        "for one. Name it with --component."
    )
    VE447 = (
        "VE447: {path} is a test split. Thresholds that are fitted on it make figures on it "
        "worthless; take the dev split."
    )
    VE460 = "VE460: there is no kind of system '{kind}'. Use one of: {known}."
    VE461 = (
        "VE461: {row} is not a system: {reason}. docs/benchmark.md has the keys of the table of "
        "systems."
    )
    VE462 = "VE462: the package {package} is missing ({reason}). Install it: pip install {install}."
    VE463 = "VE463: there is no pipeline or config {where}."
    VE464 = (
        "VE464: scispaCy's model {model} is not installed; the released ones are {known}. "
        "scispaCy's page of models has the address to install it from."
    )
    VE465 = "VE465: there is neither a knowledge base nor a training file or folder {where}."
    VE466 = "VE466: the weights {where} cannot be loaded: {reason}"
    VE467 = "VE467: the corpus is annotated for no type that the system knows ({types})."
    VE468 = (
        "VE468: {n} of the files are test splits, the first {first}. Read them for figures to "
        "report only, with --read-tests: each reading is noted. To try things out use --split dev."
    )
    VE469 = "VE469: these names are given more than once: {names}. Give each its own."
    VE470 = (
        "VE470: a benchmark needs at least one system and one file: --system vaner=PIPELINE and a "
        ".spacy file or folder."
    )
    VE471 = "VE471: its process ended with status {code}; the last line that it wrote: {last}"
    VE472 = (
        "VE472: '{option}' is not KIND=WHERE or KIND:NAME=WHERE. Write for instance "
        "--system vaner=training/model-best, --system dictionary:names=converted/sample."
    )
    VE473 = "VE473: the table of systems {path} cannot be read: {reason}"
    VE474 = "VE474: there is no result of a benchmark in {folder}."
    VE475 = (
        "VE475: {path} is not a file of word vectors: {reason}. Give the .safetensors of `vectors` "
        "with --words, or gensim's KeyedVectors."
    )
    VE476 = (
        "VE476: a .safetensors of word vectors holds no words, but their hashes. Say with --words "
        "which texts or .spacy files the words are to be taken from."
    )
    VW401 = (
        "VW401: the pipeline predicts labels that are no type of these files: {labels}. They are "
        "left out of the scores. If one of them is meant as one of {types}, say so with a label "
        "map, e.g. --label-map {example}."
    )
    VW403 = (
        "VW403: the documents are also annotated for {types}, which are no types of the pipeline: "
        "not asked and not scored. Add them to components.vaner_ner.types if they are wanted."
    )
    VW402 = (
        "VW402: {n} documents are scored more than once for the same type, the first in {path} "
        "(corpus {corpus}, document {id}). Were two views or copies of one corpus given?"
    )

    # Corpora
    VE201 = "VE201: {path}, line {line}: expected {expected}; found: {found}"
    VE202 = "VE202: {path} cannot be read: {reason}."
    VE203 = (
        "VE203: {path}, line {line}: this is not UTF-8 (byte 0x{byte:02x}). Convert the file, e.g. "
        "with iconv -f latin1 -t utf8."
    )
    VE204 = "VE204: there is no format '{name}'. Known: {known}."
    VE205 = "VE205: the format '{name}' has no option '{option}'; it takes: {takes}."
    VE206 = (
        "VE206: {path}, line {line}: the tag '{tag}' names no type. Give the type of the file with "
        "--type (option type_name)."
    )
    VE207 = (
        "VE207: '{value}' says not what a document is. Use auto, docstart, sentence or a number of "
        "sentences."
    )
    VE208 = "VE208: {key} = '{value}' is not known. Use one of: {known}."
    VE209 = (
        "VE209: the format '{format}' gives raw text, no words of its own. Leave --view out, or "
        "take --view text."
    )
    VE210 = (
        "VE210: the tokenizer 'scispacy' needs the package scispacy ({reason}). Install it with "
        "pip install 'spacy_vaner[scispacy]', or take --tokenizer spacy."
    )
    VE211 = "VE211: the catalogue has no corpus '{corpus}'. Known: {known}."
    VE212 = "VE212: {corpus} has no view '{view}'. It has: {known}."
    VE213 = "VE213: {corpus}, view {view}, has no split '{split}'. It has: {known}."
    VE214 = (
        "VE214: {corpus} is not complete under {folder}: {path} is missing. Get the corpus from "
        "{source} and lay it out so, or set --corpora-dir."
    )
    VE215 = "VE215: {problem} See python -m spacy vaner convert --help."
    VE216 = (
        "VE216: '{name}' cannot be a type: it must not be empty nor hold ':', '=' or a line break "
        "(spaCy's config could not hold it). Give it another name in the type map."
    )
    VE217 = "VE217: the folder {path} is there already and not empty. Name another output."
    VE218 = "VE218: the format '{name}' cannot be written. These can: {known}."
    VE219 = (
        "VE219: {path}: a record cannot be written in this format: expected {expected}; found: "
        "{found}."
    )
    VE220 = (
        "VE220: no corpus of the catalogue is complete under {folder}. "
        "`python -m spacy vaner corpora --corpora-dir {folder}` says which files are missing; set "
        "--corpora-dir where they are elsewhere."
    )
    VE230 = "VE230: {problem} See python -m spacy vaner instructions --help."
    VE231 = (
        "VE231: no sentence of the files is annotated completely for any type, so there is nothing "
        "to ask. Convert corpora with `python -m spacy vaner convert`."
    )
    VE240 = "VE240: --how names {names}, which there is not. There are: {known}."
    VE241 = "VE241: {path} is not named NAME.SPLIT.spacy, as `convert` names its files."

    # 3xx: training and reader
    VE301 = (
        "VE301: there is no file or folder {path}. Convert a corpus first: "
        "`python -m spacy vaner convert`."
    )
    VE302 = (
        "VE302: the folder {path} holds no *.{files}. Name the files themselves, or another "
        "`split`."
    )
    VE303 = "VE303: drop_corpus = {drop_corpus} is a share of the examples: 0 to 1."
    VE304 = "VE304: weights = {weights} must not be negative; 0 leaves a corpus out."
    VE305 = (
        "VE305: the reader has no paths. Give them on the command line (--paths.train FILES, with "
        "commas between) or in [paths]."
    )
    VE307 = "VE307: limit = {limit} must not be negative; 0 reads all documents."
    VE308 = (
        "VE308: weights are given for {names}, but no file or corpus is called so. Use the name of "
        "a file without .spacy, or of a corpus."
    )
    VE309 = (
        "VE309: protect: the folder {path} holds no *.test.spacy and no *.dev.spacy, so nothing "
        "would be protected."
    )
    VE306 = (
        "VE306: no document is left of {paths}: the files are empty, their weights are 0, or the "
        "leakage guard left out all of them (see the conversion report)."
    )

    # 5xx: pretraining
    VE501 = "VE501: {path} cannot be read as JSON: {error}."
    VE502 = (
        "VE502: {path} has faults:{faults}\nThe settings are explained in docs/pretraining.md and "
        "docs/tagger.md."
    )
    VE503 = (
        "VE503: {path}, line {line}: this is not UTF-8 (byte 0x{byte:02x}). Convert the file, e.g. "
        "with iconv -f latin1 -t utf8."
    )
    VE504 = "VE504: {path} cannot be read after line {line}: {reason}. Get the file again."
    VE505 = (
        "VE505: {path}, line {line}: expected {expected}; found: {found!r}. A file of names is a "
        "table with tabs and a header with the columns name, type and id."
    )
    VE506 = (
        "VE506: {path} cannot be a source ({reason}). Give .txt or .txt.xz files (a document a "
        "line), .tsv or .tsv.xz files of names, or folders with them."
    )
    VE507 = (
        "VE507: {path} is missing or damaged: {reason}. Prepare the text again "
        "(`python -m spacy_vaner.training prepare`), or copy the whole folder again."
    )
    VE508 = (
        "VE508: the tokenizer {path} names no mask_token in its tokenizer_config.json, so nothing "
        "can be masked. Make one with `python -m spacy vaner tokenizer`."
    )
    VE509 = "VE509: {path} holds a run already. Continue it with --resume, or name another output."
    VE510 = "VE510: there is no checkpoint in {path} to resume from. Leave --resume out."
    VE511 = (
        "VE511: the checkpoint {path} was made with other settings: {differences}. Take the "
        "settings of the run, or start a new one from its weights with --init-weights."
    )
    VE512 = (
        "VE512: {path} cannot be written: {error}. The last good checkpoint stays: {last}. Make "
        "room and continue with --resume."
    )
    VE513 = (
        "VE513: the loss is no number any more (step {step}). The last good checkpoint: {last}. "
        "Lower optimizer.lr, or make schedule.warmup_steps longer."
    )
    VE514 = "VE514: the weights in {path} do not fit or cannot be read: {reason}."
    VE515 = "VE515: {path} is missing or damaged: {reason}. Copy the parts again."
    VE516 = (
        "VE516: {path} cannot be read as a file of protected runs: {reason}. Make it anew with "
        "`python -m spacy vaner protected-runs`."
    )
    VE517 = (
        "VE517: the {split} text in {path} has {n} subwords; a row takes {row}. Prepare more text "
        "(or a higher --dev-share), or lower row_subwords."
    )
    VE518 = (
        "VE518: drawing the curve needs matplotlib ({reason}). Install it with "
        "pip install matplotlib."
    )
    VE519 = "VE519: {path} is there already and was not made by this command. Name another output."
    VE520 = "VE520: {problem} See `python -m spacy_vaner.training --help`."
    VE521 = "VE521: word vectors need gensim. Install it: pip install 'spacy_vaner[vectors]'."
    VE522 = (
        "VE522: no word of the texts occurs {min_count} times, so there are no vectors to learn. "
        "Give more text."
    )
    VE523 = (
        "VE523: {path} is missing or damaged: {reason}. Make the rows again "
        "(`python -m spacy vaner rows`), or copy the whole folder again."
    )
    VE524 = "VE524: {setting} names what is not among the rows: {names}. There are: {known}."
    VE525 = (
        "VE525: {path} holds nothing to train on. Prepare files named *.train.spacy, and do not "
        "set all of mixture to 0."
    )
    VE526 = (
        "VE526: the backbone {backbone} has another tokenizer than the rows {rows}. Prepare the "
        "rows with --tokenizer and the backbone's folder."
    )
    VE527 = (
        "VE527: windows of {longest} subwords and {framed} of an instruction are more than the "
        "backbone reads ({max_positions}). Lower window_subwords, and --max-subwords of "
        "`python -m spacy vaner rows`."
    )
    VE528 = (
        "VE528: {path} does not say whether it is to be trained on. Name it *.train.spacy or "
        "*.dev.spacy; test splits are for `python -m spacy vaner evaluate`."
    )
    VE529 = (
        "VE529: {path} holds no trained tagger ({reason}). Give the folder of a run of "
        "`python -m spacy_vaner.training tag`, or its folder best."
    )
    VE530 = (
        "VE530: noise.hidden_dropout = {share} is for backbones of the LLaMA family; this one has "
        "dropout of its own. Set noise.hidden_dropout=0."
    )
    VE531 = (
        "VE531: causal = true does not go with the word features of the backbone {backbone}: they "
        "tell what comes later in a word. Give one without (word_rows = 0)."
    )
    VE535 = (
        "VE535: {type} was not trained with the corpus name {name!r}; it knows: {known}. Give one "
        "of them, or none."
    )
    VE536 = "VE536: --corpus {given}: expected TYPE=NAME, with commas between, e.g. Gene=BC2GM."
    VE532 = (
        "VE532: several processes train together with accelerate ({reason}). Install it with "
        "pip install accelerate, or start one process."
    )
    VE533 = (
        "VE533: device = {device!r} names one GPU, and several processes were started. Set device "
        "to cuda, or to auto; each takes the GPU of its number."
    )
    VE534 = (
        "VE534: {n_passes} passes of a step cannot be shared by {n} processes. Set rows_per_step "
        "and rows_per_pass so that their quotient is a multiple of {n}."
    )
    VW501 = "VW501: the checkpoint {path} is damaged ({reason}); the one before it is taken."
    VW502 = (
        "VW502: the run goes on with other settings than before: {differences}. Its loss series is "
        "no longer that of one uninterrupted run."
    )

    # 6xx: knowledge
    VE600 = (
        "VE600: this needs the package {package} ({reason}). Install it with "
        "pip install 'spacy_vaner[dbr]'."
    )
    VE601 = "VE601: {path}, line {line}: expected {expected}; found: {found}"
    VE602 = "VE602: {path} cannot be read after line {line}: {reason}."
    VE603 = (
        "VE603: {path}, line {line}: this is not UTF-8 (byte 0x{byte:02x}). Convert the file, e.g. "
        "with iconv -f latin1 -t utf8."
    )
    VE604 = "VE604: there is no kind of source '{kind}'. Known: {known}."
    VE605 = "VE605: a source of the kind '{kind}' has no option '{option}'; it takes: {takes}."
    VE606 = (
        "VE606: {path} is no table of semantic types ({reason}). It is a JSON object: "
        '{{"T047": {{"name": "Disease or Syndrome", "types": ["Disease"]}}, …}}.'
    )
    VE607 = (
        "VE607: {path}: only names of training splits may get into a knowledge base, and this file "
        "is not called train.spacy or NAME.train.spacy. Names of dev or test splits there would "
        "make figures on these splits worthless."
    )
    VE608 = (
        "VE608: {path} cannot be read as a knowledge base: {reason}. Build it with "
        "`python -m spacy vaner kb build`."
    )
    VE609 = (
        "VE609: the knowledge base {path} has the form {version}, which this version of "
        "spacy_vaner does not read. Build it anew with `python -m spacy vaner kb build`."
    )
    VE610 = "VE610: the sources give no name that can be used, so there is no knowledge base."
    VE611 = (
        "VE611: {type!r} (name {name!r}) cannot be a type: it must not be empty nor hold ':', '=' "
        "or a line break. Rename it in the source."
    )
    VE612 = "VE612: {key} = {value!r} is not possible; it has to be {expected}."
    VE613 = "VE613: {folder} is there already and is no retriever's folder. Name another one."
    VE614 = (
        "VE614: {folder} holds no retriever, or a damaged one: {reason}. Make it anew with "
        "`python -m spacy vaner kb index`."
    )
    VE615 = (
        "VE615: the retriever in {folder} has the form '{version}', which this version of "
        "spacy_vaner does not read. Make it anew with `python -m spacy vaner kb index`."
    )
    VE616 = (
        "VE616: the retriever in {folder} was made from another knowledge base than this one "
        "({n_names:,} names). Make it anew with `python -m spacy vaner kb index`."
    )
    VE617 = (
        "VE617: the encoder {name!r} cannot be loaded: {reason}. Name a folder with config, "
        "tokenizer and weights, or a model in the hub's cache."
    )
    VE618 = (
        "VE618: a source is written KIND=FILE or KIND:TYPE=FILE, e.g. obo:Disease=doid.obo; found: "
        "{found}"
    )
    VE619 = (
        "VE619: {path} marks no phrase. AutoPhrase's segmentation.txt has them between <phrase> "
        "(or <phrase_Q=…>) and </phrase>; a higher min_quality leaves fewer."
    )
    VE620 = (
        "VE620: the pipeline {pipeline} cannot give phrases: {reason}. Name one that sets entities "
        "or has a parser, en_core_sci_sm for one."
    )
    VE621 = (
        "VE621: {path} cannot be read as candidates: {reason}. Make them anew with "
        "`python -m spacy vaner dbr`."
    )
    VE622 = (
        "VE622: the candidates {path} were made with another knowledge base than {kb}. Make them "
        "anew with `python -m spacy vaner dbr`, or name the other one."
    )
    VE623 = "VE623: {options} exclude each other: phrases come from one place. Give one of them."
    VE624 = (
        "VE624: the candidates {path} were made of none of the files that are read ({corpora}), or "
        "of an earlier state of one of them. Make them anew: `python -m spacy vaner dbr`."
    )
    VE625 = "VE625: {path} holds a second set of candidates for {corpus}. Name one of them only."
    VE626 = (
        "VE626: rows of names (mode = {mode}) need candidates and the knowledge base that they "
        "come from: make them with `python -m spacy vaner dbr` and give both, on the command line "
        "--paths.candidates and --paths.kb; or switch the rows off: --corpora.train.dbr.mode off"
    )
    VE627 = (
        "VE627: {path} holds no candidates, and dbr.mode = {mode} draws rows of them. Prepare the "
        "rows with --candidates and --kb, or set dbr.mode=off."
    )
    VE628 = "VE628: candidates come from a knowledge base: give --candidates and --kb together."
    VW601 = (
        "VW601: all names have the type {type}: training rows will have no negatives. Add names of "
        "other types, for instance anatomy or procedures."
    )
    VW602 = (
        "VW602: the knowledge base holds names of held-out splits ({sources}). It serves to "
        "measure what this leak adds; train nothing with it that is used."
    )

    # 7xx: annotation
    VE701 = "VE701: {option}: there is no format '{name}'. Use one of: {known}."
    VE702 = (
        "VE702: there is nothing to annotate in {path}: no such file, or no file whose name says "
        "its format. Give the format with --from: {known}."
    )
    VE703 = "VE703: the format of {path} cannot be told by its name. Give it with --from: {known}."
    VE704 = (
        "VE704: the results of {one} and {other} would both be called {name}. Give one of them "
        "another name, or annotate them into two folders."
    )
    VE705 = (
        "VE705: {path} was begun with other settings: {differences}. Take the settings of then, or "
        "name another output: results of two settings are not mixed."
    )
    VE706 = "VE706: {path} is there already and was not made by this command. Name another output."
    VE707 = (
        "VE707: {path} cannot be written: {error}. What is done stays; mend it and start again "
        "with the same command."
    )
    VE708 = "VE708: {path} is damaged: {error}. Remove it and start again: its part is done anew."
    VE709 = (
        "VE709: the pipeline {model} cannot be loaded: {reason}. Give the folder of a trained "
        "pipeline, or the name of an installed one, with --model."
    )
    VE710 = (
        "VE710: types and corpus can be asked of a vaner_ner component only; the pipeline has: "
        "{components}. Leave --types and --corpus out."
    )
    VE711 = "VE711: the pipeline ({components}) predicts no entities. Take one with vaner_ner."
    VE712 = "VE712: the GPU {gpu} cannot be used: {reason}. Leave --gpu-id out to use the CPU."
    VE713 = (
        "VE713: {what} needs the package {package}, which is not installed. Install it with "
        "pip install 'spacy_vaner[{extra}]'."
    )
    VE714 = (
        "VE714: one of {n_workers} workers was killed, mostly because memory ran out. What is done "
        "stays; start again with the same command and fewer --workers."
    )
    VE715 = "VE715: Ray cannot be started or found {where}: {reason}"
    VE716 = (
        "VE716: standard input is on one machine only, --engine ray may use several. Write it to a "
        "file, or take --engine local."
    )
    VE717 = "VE717: there is no engine '{engine}'. Use local or ray."
    VE718 = "VE718: {problem}. See python -m spacy vaner annotate --help."
    VE719 = (
        "VE719: this package carries no tagger. Name a trained pipeline, a folder or an installed "
        "one, with --model."
    )
    VE720 = (
        "VE720: the package on this machine carries the tagger {here}, the run was begun with "
        "{name}. Install the same version of spacy_vaner on every machine, or give a pipeline with "
        "--model."
    )
    VE750 = (
        "VE750: the server cannot listen on {host}, port {port}: {reason}. Choose another --port, "
        "or an address of this machine as --host."
    )
    VE751 = (
        "VE751: {what} has {number}, this server takes at most {limit}. Send less at a time, or "
        "start it with a larger {option}."
    )
    VE752 = "VE752: the body cannot be read: {reason}."
    VE753 = (
        "VE753: a body of the type {given} is not read here. Send text/plain or application/json, "
        "in UTF-8."
    )
    VE754 = "VE754: the address has a setting that is not taken: {problem}."
    VE755 = (
        "VE755: {n_waiting} requests are waiting, this server takes no more (--max-waiting). Try "
        "again in a few seconds."
    )
    VE756 = (
        "VE756: there is no answer within {seconds:g} seconds (--max-seconds). Send less at a "
        "time, or try again later."
    )
    VE757 = "VE757: the server is being stopped and takes no more requests. Try again later."
    VE758 = "VE758: {corpus!r} is neither the name of a corpus nor Type=name,Type=name."
    VE759 = (
        "VE759: the pipeline failed on document {number} of the request ({reason}). Leave it out; "
        "the log of the server says more."
    )
    VW750 = (
        "VW750: the server listens on {host}: whoever can reach this machine can use it, it asks "
        "for no password. Leave --host out to serve this machine alone."
    )
