package rebuild

import (
	"fmt"

	"openvstorage/alba/manifest"
	"openvstorage/alba/policy"
)

// candidate is an upload of an object, as its records tell it.
type candidate struct {
	m       manifest.Manifest
	hash    [32]byte
	version uint64 // at least, if not exact
	exact   bool
	lack    string // why it cannot be read; "": it can
	names   uint64 // fragments that were found
}

// newer decides which of two candidates of one name came later, and whether that is certain.
// Of equal bytes it does not matter, and the one with more fragments is as good as newer.
func newer(a, b *candidate) (later, certain bool) {
	if a.hash == b.hash && a.m.Size == b.m.Size && (a.lack == "") != (b.lack == "") {
		return a.lack == "", true
	}
	switch {
	case a.version != b.version:
		later = a.version > b.version
	case a.exact != b.exact: // that which has this version or a newer one
		later = b.exact
	case a.m.Epoch != b.m.Epoch:
		later = a.m.Epoch > b.m.Epoch
	case a.m.Time != b.m.Time:
		later = a.m.Time > b.m.Time
	default:
		later = a.names > b.names
	}
	first, second := a, b // second is the later one
	if later {
		first, second = b, a
	}
	switch {
	case a.hash == b.hash && a.m.Size == b.m.Size:
		certain = true
	case first.exact:
		certain = second.version > first.version
	}
	return later, certain
}

// decision is what becomes of a name.
type decision struct {
	best  *candidate
	doubt string // why best is not certain; "": it is
}

// add takes another candidate of the name into account.
func (d *decision) add(c *candidate) {
	if d.best == nil {
		d.best = c
		return
	}
	later, certain := newer(c, d.best)
	if !certain {
		d.doubt = fmt.Sprintf("objects %v and %v have the name, and which one is newer is not certain", d.best.m.Object, c.m.Object)
	}
	if later {
		d.best = c
	}
}

// verdict is what is told of a name; "": it is entered, as it was.
func (d *decision) verdict() string {
	if d.best.lack != "" {
		return d.best.lack
	}
	return d.doubt
}

// complete says why a candidate cannot be read, "" if it can: each chunk needs k fragments,
// and the bytes must be those of the object.
func complete(m *manifest.Manifest) string {
	for i := range m.Chunks {
		c := &m.Chunks[i]
		if m.Inlined {
			break
		}
		n := 0
		for _, f := range c.Fragments {
			if f.OSD != policy.None {
				n++
			}
		}
		if n < int(m.Policy.K) {
			return fmt.Sprintf("chunk %d has %d fragments on the disks, of %d that it takes to read it", i, n, m.Policy.K)
		}
	}
	if err := m.Validate(); err != nil {
		return err.Error()
	}
	return ""
}
