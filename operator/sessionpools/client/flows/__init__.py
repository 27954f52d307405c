"""What the client can do, once, as flows: requests made, answers read. client.py and aio.py make methods of them."""
