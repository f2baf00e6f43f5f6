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

// groupsKey, in every group, holds the names of all members of the data directory, each
// behind its length, a byte. So each of the groups knows which others were made. A directory
// that the groups were not made in has a key of its own.
func (g *Groups) groupsKey() []byte { return g.ownKey("host/groups") }

// ownKey is a key that belongs to this data directory. That of the directory in which the
// groups were made is plain, as it was when there were no others.
func (g *Groups) ownKey(name string) []byte {
	if g.opt.Host == g.opt.ID {
		return []byte(name)
	}
	return fmt.Appendf(nil, "%s/%s", name, g.opt.Host)
}

// find tells which of the wanted groups are there, without opening any. It refuses if one
// is missing that the record knows.
func (g *Groups) find() (there, absent []Spec, err error) {
	record := g.opt.Ledger.Record()
	var missing []string
	var why error
	for _, s := range g.specs {
		if s.Away {
			continue
		}
		_, err := g.opt.FS.Stat(path.Join(g.dir(s), "log"))
		switch {
		case err == nil && (record.Made(s.dirName()) || g.begun(s)):
			there = append(there, s)
		case err == nil: // a first start was cut before the log had a segment
			absent = append(absent, s)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, nil, err
		case record.Made(s.dirName()):
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
func (g *Groups) begun(s Spec) bool {
	names, err := g.opt.FS.ReadDir(path.Join(g.dir(s), "log"))
	return err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".raft") })
}

// mayMake refuses to make a group of which there is evidence that it was made: in the
// record, in another group, or by something that is made only after it.
func (g *Groups) mayMake(ctx context.Context, absent []Spec) error {
	record := g.opt.Ledger.Record()
	for _, s := range absent {
		if record.Made(s.dirName()) {
			return g.missing(s.Name, fmt.Errorf("%s says that there was one, and its log is empty", datadir.FormatFile))
		}
		for _, m := range g.members.all() {
			known, err := g.peersOf(ctx, m)
			if err != nil {
				return fmt.Errorf("group %s: %w", m.spec.Name, err)
			}
			if slices.Contains(known, s.dirName()) {
				return g.missing(s.Name, fmt.Errorf("group %s says that there was one, and %s is absent", m.spec.Name, g.dir(s)))
			}
		}
		for _, name := range s.After {
			_, err := g.opt.FS.Stat(path.Join(g.opt.Dir, name))
			switch {
			case err == nil:
				return g.missing(s.Name, fmt.Errorf("%s is there, which is made only after it, and %s is absent", path.Join(g.opt.Dir, name), g.dir(s)))
			case !errors.Is(err, fs.ErrNotExist):
				return err
			}
		}
	}
	return nil
}

// peersOf returns the names of this directory's members that a group knows.
func (g *Groups) peersOf(ctx context.Context, of *member) (names []string, err error) {
	key := g.groupsKey()
	values, err := of.store().MultiGet(ctx, arakoon.Consistent, key)
	if err != nil {
		return nil, err
	}
	for b := values[0]; len(b) > 0; {
		n := int(b[0])
		if n > len(b)-1 {
			return nil, fmt.Errorf("key %q: a name of %d bytes, %d are left", key, n, len(b)-1)
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

// remember has the data directory remember that members were made.
func (g *Groups) remember(names ...string) error {
	record := g.opt.Ledger.Record()
	if !slices.ContainsFunc(names, func(n string) bool { return !record.Made(n) }) {
		return nil
	}
	return g.opt.Ledger.Change(func(r *datadir.Record) {
		r.Groups = append(r.Groups, names...)
		slices.Sort(r.Groups)
		r.Groups = slices.Compact(r.Groups)
	})
}

// dirNames are those of the members that are here, as the record has them.
func (g *Groups) dirNames() (names []string) {
	for _, s := range specsOf(g.members.all()) {
		names = append(names, s.dirName())
	}
	slices.Sort(names)
	return names
}
