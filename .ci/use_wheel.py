"""Use an installed spacy_vaner: make, train, save, load from another place, predict."""

import subprocess
import sys
from pathlib import Path

import spacy
from spacy.training import Example

import spacy_vaner

MODEL = {
    "backbone": {
        "@misc": "spacy-vaner.small_llama.v1",
        "hidden_size": 32,
        "n_layers": 1,
        "n_heads": 2,
        "intermediate_size": 64,
        "max_positions": 512,
        "vocab_size": 300,
    },
}
TEXT = "Aspirin eased the headache, but aspirin did not ease the fever."
ENTITIES = [(0, 7, "Chemical"), (18, 26, "Disease"), (32, 39, "Chemical"), (57, 62, "Disease")]

assert "site-packages" in spacy_vaner.__file__, f"not the wheel: {spacy_vaner.__file__}"

nlp = spacy.blank("en")
assert "transformers" not in sys.modules and "peft" not in sys.modules
settings = {"types": ["Disease", "Chemical"], "asking": "per_type", "model": MODEL}
nlp.add_pipe("vaner_ner", config=settings)
example = Example.from_dict(nlp.make_doc(TEXT), {"entities": ENTITIES})
optimizer = nlp.initialize(lambda: [example])
optimizer.learn_rate = 0.005
for _ in range(150):
    losses = nlp.update([example], sgd=optimizer)
print("Loss after 150 steps:", losses)

doc = nlp(TEXT)
found = [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
assert found == ENTITIES, found
nlp.to_disk("saved")
Path("elsewhere").mkdir()
Path("saved").rename("elsewhere/pipeline")

load = f"import spacy; print([e.text for e in spacy.load('elsewhere/pipeline')({TEXT!r}).ents])"
again = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
assert again.stdout.strip() == str([ent.text for ent in doc.ents]), again.stdout
print("Found again after loading:", again.stdout.strip())
