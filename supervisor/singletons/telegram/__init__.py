"""Telegram: bots whose chats are conversations. Nothing outside of this folder knows the Bot API."""
