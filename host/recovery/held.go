package recovery

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/google/uuid"

	"openvstorage/alba/abm"
	"openvstorage/alba/cluster"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/state"
	"openvstorage/host/members"
	"openvstorage/volumedriver/registry"
)

// disksGroup is the group that has the disks and the namespaces.
const disksGroup = "abm"

// held is what a backup of one group says of what matters here.
type held struct {
	info state.BackupInfo
}

// readBackup reads a backup of one group to its end, and refuses what the group could not go
// on with beside others that are newer.
func readBackup(open func() (io.ReadCloser, error), group string, id uuid.UUID) (h *held, err error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h = new(held)
	if h.info, err = state.Scan(bufio.NewReaderSize(f, 1<<20), func(key, value []byte) error { return h.take(group, key, value) }); err != nil {
		return nil, fmt.Errorf("backup of group %s: %w", group, err)
	}
	switch {
	case h.info.Group != group:
		return nil, fmt.Errorf("%w: the backup is of group %q, and group %s is to be made", ErrWay, h.info.Group, group)
	case h.info.Cluster != id:
		return nil, fmt.Errorf("%w: the backup is of another data directory: its group is %s, and here it is %s", ErrWay, h.info.Cluster, id)
	}
	return h, nil
}

// take looks at one key. What was half done at the backup, and is not half done any more as
// far as the others know, would be finished, or undone, a second time: a vDisk that was being
// made when the backup was taken would be removed with all that it holds by now.
func (h *held) take(group string, key, value []byte) error {
	if group == members.Config {
		in, err := registry.IntentIn(key, value)
		if err == nil && in != nil {
			err = fmt.Errorf("%w: it was taken while vDisk %s was being made or removed, and that would be undone: take another backup", ErrWay, in.ID)
		}
		return err
	}
	n, err := nsm.NamespaceIn(key, value)
	if err == nil && n != nil && n.State != nsm.NamespaceActive && n.State != nsm.NamespaceRemoving {
		err = fmt.Errorf("%w: it was taken while namespace %d was moved between NSM hosts, or after it: take another backup", ErrWay, n.Number)
	}
	return err
}

// raised is what a key of the group is to be, whose numbers go on by so much behind those of
// the backup.
func raised(group string, by uint64) func(key, value []byte) ([]byte, error) {
	if group == members.Config {
		return func(key, value []byte) ([]byte, error) {
			value, _, err := registry.Restored(key, value, by)
			return value, err
		}
	}
	return func(key, value []byte) ([]byte, error) { return nsm.Restored(key, value, by) }
}

// source is what a group is made of, to be read from its beginning. A group that begins with
// nothing is a backup of one that holds nothing.
func (r *Recovery) source(ctx context.Context, g *Group) (io.ReadCloser, error) {
	if g.From == FromBackup {
		return r.o.Backup()
	}
	draft := path.Join(r.o.Dir, "arakoon", g.Name+".beginning")
	clear := func() error { return errors.Join(r.o.FS.RemoveAll(draft), r.o.FS.RemoveAll(draft+".marks")) }
	if err := clear(); err != nil { // of an earlier try; nothing of it was ever a member
		return nil, err
	}
	empty := *g
	empty.dir = draft
	o := r.options(&empty)
	o.Existing = false
	var all bytes.Buffer
	err := r.openedWith(ctx, g.Name, o, func(ctx context.Context, n *arakoon.Node) error {
		_, err := n.Backup(ctx, &all)
		return err
	})
	if err = errors.Join(err, clear()); err != nil {
		return nil, err
	}
	return io.NopCloser(&all), nil
}

// changeOf is what becomes of the group that is made: numbers that go on behind those that may
// have been given out since, and what the other groups know that the group is to know.
func (r *Recovery) changeOf(ctx context.Context, g *Group) (*state.Change, error) {
	change := &state.Change{Each: raised(g.Name, g.By), Set: map[string][]byte{}}
	err := r.opened(ctx, r.neighbour(g.Name), func(ctx context.Context, n *arakoon.Node) error {
		keys := groups.OwnKeys(r.plan.Cluster, r.plan.Host)
		values, err := n.MultiGet(ctx, arakoon.Consistent, keys...)
		if err != nil {
			return err
		}
		for i, k := range keys {
			if values[i] == nil {
				return fmt.Errorf("key %q, which each group has, is absent: start this host once with all that it had before", k)
			}
			change.Set[string(k)] = bytes.Clone(values[i])
		}
		if !strings.HasPrefix(g.Name, nsmPrefix) {
			return nil
		}
		told, err := toldBy(ctx, n, g.Name)
		if err != nil {
			return err
		}
		set, err := nsm.Rejoined(told.delivered, told.osds)
		for k, v := range set {
			change.Set[k] = v
		}
		return err
	})
	return change, err
}

// neighbour is the group that is asked what all of them know: for an NSM, that of the disks.
func (r *Recovery) neighbour(name string) *Group {
	of := disksGroup
	number, dir := members.Here(r.dir, of)
	if number == 0 {
		for _, s := range r.o.Specs {
			if s.Name != name {
				of = s.Name
				if number, dir = members.Here(r.dir, of); number != 0 {
					break
				}
			}
		}
	}
	_, spec := r.at(of)
	return &Group{Name: of, Member: number, dir: dir, spec: spec}
}

// told is what the ABM has told an NSM host, and which namespaces that host is to have.
type told struct {
	delivered  uint64
	osds       []nsm.OSD
	namespaces []string
}

// toldBy asks the ABM for that. An ABM of several hosts is refused: namespaces may have moved
// since the backup, and two hosts would have them.
func toldBy(ctx context.Context, n *arakoon.Node, group string) (t told, err error) {
	c := cluster.NewClient(n)
	of := abm.NewClient(c, c)
	hosts, err := of.Hosts(ctx, userfn.Consistent)
	if err != nil {
		return t, err
	}
	if len(hosts) != 1 || hosts[0].Name != group {
		return t, fmt.Errorf("%w: the ABM has %d NSM hosts, and among several namespaces may have moved: restore all groups from a backup of all: `ovs restore metadata`", ErrWay, len(hosts))
	}
	t.delivered = hosts[0].Delivered
	for after := (*[16]byte)(nil); ; {
		page, err := of.OSDs(ctx, after, abm.MaxPage, userfn.Consistent)
		if err != nil {
			return t, err
		}
		for _, o := range page {
			states := map[abm.OSDState]nsm.OSDState{abm.OSDActive: nsm.OSDLinked, abm.OSDDraining: nsm.OSDDraining, abm.OSDLost: nsm.OSDLost}
			if s := states[o.State]; s != 0 && o.Number != 0 {
				t.osds = append(t.osds, nsm.OSD{Number: o.Number, State: s, Node: o.Node})
			}
			after = &o.LongID
		}
		if len(page) < abm.MaxPage {
			break
		}
	}
	for after := ""; ; {
		page, err := of.NamespaceNames(ctx, after, abm.MaxPage, userfn.Consistent)
		if err != nil {
			return t, err
		}
		if t.namespaces = append(t.namespaces, page...); len(page) < abm.MaxPage {
			return t, nil
		}
		after = page[len(page)-1]
	}
}

// explain says in words what will be missing. It opens groups that are alone, as a start does.
func (s *sole) explain(ctx context.Context, of *held) error {
	p := &s.plan
	switch {
	case s.g.Name == members.Config:
		s.g.Missing = fmt.Sprintf("all that was written behind revision %d: vDisks that were made since have no name, and what they stored stays where it is; vDisks that were removed since are listed, and cannot be opened: delete them; what was renamed has its older name; hosts that have joined since join anew; certificates that were revoked since are good again: revoke them anew", s.g.Revision)
		_, err := s.changeOf(ctx, &s.g)
		return err
	case of != nil:
		s.g.Missing = fmt.Sprintf("all objects that were written behind revision %d. A vDisk whose files in %s follow its older catalog without a gap has lost nothing; another one is halted, and says what is missing. A vDisk that was made since has nothing but these files", s.g.Revision, path.Join(s.o.Dir, "buffer"))
	default:
		s.g.Missing = "all objects: every vDisk that exists now has lost its catalog, and cannot be opened. Delete them, make others, and fill these from your own copies. Their fragments stay on the disks until `ovs alba backend resume-deletion`"
	}
	err := s.opened(ctx, s.neighbour(s.g.Name), func(ctx context.Context, n *arakoon.Node) error {
		t, err := toldBy(ctx, n, s.g.Name)
		if s.g.From == FromNothing {
			s.g.Missing += fmt.Sprintf(". Namespaces: %d", len(t.namespaces))
		}
		return err
	})
	if err == nil {
		_, err = s.changeOf(ctx, &s.g)
	}
	p.Lacks = append(p.Lacks, "nothing is deleted on disks until `ovs alba backend resume-deletion`, which checks first, and refuses while a vDisk lacks its namespace")
	return err
}
