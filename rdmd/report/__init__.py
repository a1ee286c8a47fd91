"""The report of an evaluation: `page.write_report` writes two figures and one page that needs no network.

`figures` draws numbers and `samples` draws samples, both from rows or plain data; `style` holds their look; `page`
fills `templates/page.html.j2`.
"""
