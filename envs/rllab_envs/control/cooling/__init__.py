"""The cooling of a data-centre room: the plant, the environment, and the controller that rooms have today."""
