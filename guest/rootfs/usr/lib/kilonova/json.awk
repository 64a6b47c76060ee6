# Flatten JSON: one line a value, its path, a tab, and the value. {"a": {"b": [1, "x"]}} gives
#   .a.b.0 <tab> 1
#   .a.b.1 <tab> x
# Enough for metadata: line ends inside strings become blanks, characters beyond ASCII stay escaped.
# The exit status is 1 if the text is not JSON.

{ text = text $0 "\n" }

function blanks() { while (at <= length(text) && index(" \t\n\r", substr(text, at, 1))) at++ }

function fail() { bad = 1; at = length(text) + 1 }

function string(   out, c) {
    at++ # the opening quote
    while (at <= length(text)) {
        c = substr(text, at, 1)
        if (c == "\"") { at++; return out }
        if (c == "\\") {
            at++
            c = substr(text, at, 1)
            if (c == "n" || c == "r" || c == "t") c = " "
            else if (c == "u") c = "\\u"
        }
        out = out c
        at++
    }
    fail()
    return out
}

function value(path,   c, key, n, start) {
    blanks()
    c = substr(text, at, 1)
    if (c == "{" || c == "[") {
        at++
        blanks()
        if (index("}]", substr(text, at, 1))) { at++; return }
        while (!bad) {
            blanks()
            if (c == "{") {
                if (substr(text, at, 1) != "\"") { fail(); return }
                key = string()
                blanks()
                if (substr(text, at, 1) != ":") { fail(); return }
                at++
            } else key = n++
            value(path "." key)
            blanks()
            if (substr(text, at, 1) == ",") { at++; continue }
            if (index("}]", substr(text, at, 1))) { at++; return }
            fail()
        }
        return
    }
    if (c == "\"") { print path "\t" string(); return }
    start = at
    while (at <= length(text) && !index(",]} \t\n\r", substr(text, at, 1))) at++
    if (at == start) { fail(); return }
    print path "\t" substr(text, start, at - start)
}

END { at = 1; value(""); exit bad }
