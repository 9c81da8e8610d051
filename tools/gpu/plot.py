"""A bar plot as SVG, written by hand: shares of a floor, 0 to 100 %. The same picture as bench_plot.c draws."""
LEFT, WIDTH, RIGHT, ROW, TOP = 330, 500, 190, 22, 58


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def text(x, y, anchor, words):
    return '<text x="%d" y="%d" text-anchor="%s">%s</text>' % (x, y, anchor, escape(words))


def svg(title, bars):
    """bars: (label, share with 1 = at the floor, value as text)."""
    height = TOP + len(bars) * ROW + 16
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">'
           % (LEFT + WIDTH + RIGHT, height), '<rect width="100%" height="100%" fill="white"/>', text(12, 22, "start", title)]
    for percent in range(0, 101, 25):
        x = LEFT + WIDTH * percent // 100
        out.append(text(x, TOP - 8, "middle", "%d %%" % percent))
        out.append('<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s"/>' % (x, TOP, x, height - 12,
                                                                        "#555" if percent == 100 else "#ddd"))
    for i, (label, share, value) in enumerate(bars):
        y, width = TOP + i * ROW, round(min(max(share, 0), 1.2) * WIDTH)
        out.append(text(LEFT - 8, y + 15, "end", label))
        out.append('<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>' % (LEFT, y + 3, width, ROW - 6,
                                                                           "#c0392b" if share > 1.02 else "#2b7a78"))
        out.append(text(LEFT + width + 6, y + 15, "start", "%.0f %%  %s" % (100 * share, value)))
    return "\n".join(out + ["</svg>", ""])
