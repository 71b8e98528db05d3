"""One declaration a command: from it come validation, permission, limit, transaction, answer, metrics and documents."""
