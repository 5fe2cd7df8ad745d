"""The local server: OpenAI's and llama-server's HTTP APIs over one loaded pair."""
