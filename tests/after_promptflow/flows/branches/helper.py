def kind_of(text):
    return "formal" if text.startswith("Dear") else "casual" if text.startswith("Hi") else "none"
