"""How the embedded models of the sticker world are trained: ``python -m training -h``. Not in the wheel."""
