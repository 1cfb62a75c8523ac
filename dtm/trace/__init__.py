"""What is read after a run: its recorded events, in other formats, as a report, as a prediction."""
