"""The method: student and teacher, their heads, and the DINO, iBOT and KoLeo losses."""
