package groups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"openvstorage/arakoon"
	"openvstorage/internal/datadir"
)

// groupsKey, in every group, holds the names of all groups of the data directory, each
// behind its length, a byte. So each of the groups knows which others were made.
var groupsKey = []byte("host/groups")

// find tells which of the wanted groups are there, without opening any. It refuses if one
// is missing that the record knows.
func (g *Groups) find() (there, absent []Spec, err error) {
	record := g.opt.Ledger.Record()
	var missing []string
	var why error
	for _, s := range g.specs {
		_, err := g.opt.FS.Stat(path.Join(g.dir(s.Name), "log"))
		switch {
		case err == nil && (record.Made(s.Name) || g.begun(s.Name)):
			there = append(there, s)
		case err == nil: // a first start was cut before the log had a segment
			absent = append(absent, s)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, nil, err
		case record.Made(s.Name):
			missing, why = append(missing, s.Name), err
		default:
			absent = append(absent, s)
		}
	}
	if len(missing) > 0 {
		err = g.missing(strings.Join(missing, ", "), fmt.Errorf("%s says that there was one, and %w", datadir.FormatFile, why))
	}
	return there, absent, err
}

// begun reports whether a group that the record does not know has a segment of its log. A
// release that kept no record has made it, or a first start that was cut short. If the
// directory cannot be read the group counts as begun, and opening it will say why.
func (g *Groups) begun(name string) bool {
	names, err := g.opt.FS.ReadDir(path.Join(g.dir(name), "log"))
	return err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".raft") })
}

// mayMake refuses to make a group of which there is evidence that it was made: in the
// record, in another group, or by something that is made only after it.
func (g *Groups) mayMake(ctx context.Context, absent []Spec) error {
	record := g.opt.Ledger.Record()
	for _, s := range absent {
		if record.Made(s.Name) {
			return g.missing(s.Name, fmt.Errorf("%s says that there was one, and its log is empty", datadir.FormatFile))
		}
		for peer, node := range g.nodes {
			known, err := peersOf(ctx, node)
			if err != nil {
				return fmt.Errorf("group %s: %w", peer, err)
			}
			if slices.Contains(known, s.Name) {
				return g.missing(s.Name, fmt.Errorf("group %s says that there was one, and %s is absent", peer, g.dir(s.Name)))
			}
		}
		for _, name := range s.After {
			_, err := g.opt.FS.Stat(path.Join(g.opt.Dir, name))
			switch {
			case err == nil:
				return g.missing(s.Name, fmt.Errorf("%s is there, which is made only after it, and %s is absent", path.Join(g.opt.Dir, name), g.dir(s.Name)))
			case !errors.Is(err, fs.ErrNotExist):
				return err
			}
		}
	}
	return nil
}

// peersOf returns the names of the groups that a group knows.
func peersOf(ctx context.Context, node *arakoon.Node) (names []string, err error) {
	values, err := node.MultiGet(ctx, arakoon.Consistent, groupsKey)
	if err != nil {
		return nil, err
	}
	for b := values[0]; len(b) > 0; {
		n := int(b[0])
		if n > len(b)-1 {
			return nil, fmt.Errorf("key %q: a name of %d bytes, %d are left", groupsKey, n, len(b)-1)
		}
		names = append(names, string(b[1:1+n]))
		b = b[1+n:]
	}
	return names, nil
}

func encodeNames(names []string) (b []byte) {
	for _, n := range names {
		b = append(append(b, byte(len(n))), n...)
	}
	return b
}

// record has the data directory remember that the groups were made.
func (g *Groups) record() error {
	record := g.opt.Ledger.Record()
	if !slices.ContainsFunc(g.specs, func(s Spec) bool { return !record.Made(s.Name) }) {
		return nil
	}
	return g.opt.Ledger.Change(func(r *datadir.Record) {
		r.Groups = append(r.Groups, g.Names()...)
		slices.Sort(r.Groups)
		r.Groups = slices.Compact(r.Groups)
	})
}
