"""The floor: errors, money, ids, secrets; imports no other app."""
