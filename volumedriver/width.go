package volumedriver

import (
	"context"
	"time"

	"openvstorage/backend"
	"openvstorage/sco"
)

// widthsAtOnce is for how many objects at most a backend is asked at once.
const widthsAtOnce = 1000

// widths is the vDisk's namespace if its backend may accept objects below full width, that
// is with fewer fragments than the policy asks for; else nil.
func (c *core) widths() backend.Widths {
	w, _ := c.namespace().(backend.Widths)
	return w
}

// narrowOf tells which SCOs of a group have objects below full width: these stay in the
// buffer (O5). If the backend does not answer, all of them stay until checkWidths.
func (st *storer) narrowOf(ctx context.Context, g *group) func(sco.Number) bool {
	w := st.core.widths()
	if w == nil {
		return nil
	}
	var numbers []sco.Number
	for _, t := range g.tlogs {
		for _, s := range t.SCOs() {
			numbers = append(numbers, s.Number)
		}
	}
	narrow, err := narrowSCOs(ctx, w, numbers)
	if err != nil {
		st.log.Warn("widths of objects are not known yet", "err", err)
		return func(sco.Number) bool { return true }
	}
	return func(n sco.Number) bool { return narrow[n] }
}

// checkWidths lets go of SCOs whose objects have got their full width.
func (st *storer) checkWidths(ctx context.Context) error {
	w := st.core.widths()
	if w == nil || time.Since(st.widths) < st.host.opt.WidthCheck {
		return nil
	}
	st.widths = time.Now()
	numbers := st.buf.Narrow()
	for len(numbers) > 0 {
		part := numbers[:min(len(numbers), widthsAtOnce)]
		numbers = numbers[len(part):]
		narrow, err := narrowSCOs(ctx, w, part)
		if err != nil {
			return err
		}
		wide := part[:0]
		for _, n := range part {
			if !narrow[n] {
				wide = append(wide, n)
			}
		}
		st.buf.Widened(wide)
	}
	return nil
}

func narrowSCOs(ctx context.Context, w backend.Widths, numbers []sco.Number) (map[sco.Number]bool, error) {
	byName := make(map[string]sco.Number, len(numbers))
	names := make([]string, len(numbers))
	for i, n := range numbers {
		names[i] = n.Name()
		byName[names[i]] = n
	}
	list, err := w.Narrow(ctx, names)
	if err != nil {
		return nil, err
	}
	narrow := make(map[sco.Number]bool, len(list))
	for _, name := range list {
		narrow[byName[name]] = true
	}
	return narrow, nil
}
