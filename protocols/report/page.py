def render(study, summary, home, root):
    return "<html>stub</html>"
