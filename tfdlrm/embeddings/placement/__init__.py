"""Where rows live and how ids reach them. One module a placement; all of them satisfy `base.Placement`."""
