#!/usr/bin/env bash
# RFDETR.from_checkpoint takes the variant of an older checkpoint from the name of a folder.
#
# Versions: rfdetr 1.11.2, torch 2.14.1, Python 3.11.
# Behaviour: where a checkpoint has no model_name (those of rfdetr before 1.7) the variant comes from args.pretrain_weights, and
#   "large", "small", ... are looked for in the whole path: weights that began as "/home/ann/small-parts/rf-detr-nano.pth" are loaded
#   as RFDETRSmall, with a third decoder layer of random weights. It logs "loaded only partially" and returns the model.
#   What helps: pass only the file's name on, or build the variant's own class.
# Output seen:
#   /home/ann/parts/rf-detr-nano.pth RFDETRNano
#   /home/ann/small-parts/rf-detr-nano.pth RFDETRSmall
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rfdetr==1.11.2 torch==2.14.1
cat > "$folder/read.py" <<'PYTHON'
import argparse, logging, sys, warnings
warnings.simplefilter("ignore")
import rfdetr, torch
from rfdetr.detr import RFDETR

logging.getLogger("rf-detr").setLevel(logging.ERROR)
state = rfdetr.RFDETRNano(pretrain_weights=None, device="cpu", num_classes=3).model.model.state_dict()
for start in ("/home/ann/parts/rf-detr-nano.pth", "/home/ann/small-parts/rf-detr-nano.pth"):
    args = argparse.Namespace(pretrain_weights=start, num_classes=3, class_names=["a", "b", "c"])
    torch.save({"model": state, "args": args}, sys.argv[1])
    print(start, type(RFDETR.from_checkpoint(sys.argv[1], device="cpu")).__name__)
PYTHON
said=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/read.py" "$folder/checkpoint_best_total.pth" 2>/dev/null | grep '^/home')
echo "$said"
[ "$said" = "$(printf '/home/ann/parts/rf-detr-nano.pth RFDETRNano\n/home/ann/small-parts/rf-detr-nano.pth RFDETRSmall')" ]
