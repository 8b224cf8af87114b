"""The words of Airlock as types: shared by every room, importing none of them."""
