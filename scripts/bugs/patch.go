package main

import (
	"fmt"
	"strings"
)

// patch is a change of some files, as `git diff` prints one, with what comes before it.
type patch struct {
	head  string // what comes before the first file
	files []filePatch
}

// filePatch is the change of a file that is there before and after.
type filePatch struct {
	name  string
	hunks []hunk
}

// hunk is a change in one place: lines that are there, and lines that take their place.
type hunk struct {
	old, new string
}

// parsePatch reads a patch. It takes no more than changes of files that are there: bugs
// need neither new files nor renames.
func parsePatch(text string) (p patch, err error) {
	var file *filePatch
	var h *hunk
	for n, line := range strings.SplitAfter(text, "\n") {
		switch {
		case strings.HasPrefix(line, "diff --git "):
			file, h = nil, nil
		case h == nil && strings.HasPrefix(line, "--- a/"):
			p.files = append(p.files, filePatch{name: strings.TrimSpace(strings.TrimPrefix(line, "--- a/"))})
			file = &p.files[len(p.files)-1]
		case h == nil && file != nil && strings.HasPrefix(line, "+++ "):
			if strings.TrimSpace(strings.TrimPrefix(line, "+++ b/")) != file.name {
				return p, fmt.Errorf("line %d: %s is to become another file", n+1, file.name)
			}
		case file != nil && strings.HasPrefix(line, "@@ "):
			file.hunks = append(file.hunks, hunk{})
			h = &file.hunks[len(file.hunks)-1]
		case h != nil && line != "":
			if err := h.add(line); err != nil {
				return p, fmt.Errorf("line %d: %w", n+1, err)
			}
		case len(p.files) == 0 && !strings.HasPrefix(line, "index "):
			p.head += line
		}
	}
	for _, f := range p.files {
		if len(f.hunks) == 0 {
			return p, fmt.Errorf("nothing is changed in %s", f.name)
		}
	}
	if len(p.files) == 0 {
		return p, fmt.Errorf("no file is changed")
	}
	return p, nil
}

func (h *hunk) add(line string) error {
	switch rest := line[1:]; line[0] {
	case ' ':
		h.old, h.new = h.old+rest, h.new+rest
	case '\n': // an empty line of context, with the blank at its end cut off
		h.old, h.new = h.old+line, h.new+line
	case '-':
		h.old += rest
	case '+':
		h.new += rest
	default:
		return fmt.Errorf("%q is neither context nor a change", line)
	}
	return nil
}

// apply returns the text of a file with the change made. Line numbers count for nothing,
// so that a patch outlives changes elsewhere in the file: the old lines must be there
// once, as whole lines.
func (f filePatch) apply(text string) (string, error) {
	for i, h := range f.hunks {
		if h.old == "" {
			return "", fmt.Errorf("%s: hunk %d has no context", f.name, i+1)
		}
		padded := "\n" + text
		at := strings.Index(padded, "\n"+h.old)
		if at < 0 {
			return "", fmt.Errorf("%s: the lines of hunk %d are not there; draw the patch again:\n%s", f.name, i+1, h.old)
		}
		if strings.Contains(padded[at+1:], "\n"+h.old) {
			return "", fmt.Errorf("%s: the lines of hunk %d are there more than once; draw the patch with more context:\n%s", f.name, i+1, h.old)
		}
		text = text[:at] + h.new + text[at+len(h.old):]
	}
	return text, nil
}
