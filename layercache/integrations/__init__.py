"""layercache inside of frameworks: one module each, imported by whoever uses it and by nothing here."""
