"""The communication manager over TCP: addresses, authentication, encryption, joining."""
