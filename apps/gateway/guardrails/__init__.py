"""What guards requests and their answers: the rules of organizations, applied where all that ask a model meet."""
