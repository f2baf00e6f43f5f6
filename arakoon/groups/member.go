package groups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"openvstorage/arakoon"
	"openvstorage/internal/broadcast"
	"openvstorage/internal/datadir"
)

// member is a group's member that is here. It is open, or has failed and is about to be opened
// anew.
type member struct {
	spec    Spec
	now     atomic.Pointer[arakoon.Node] // as it was opened last; it may have failed
	claimed uint64                       // changes, as of the last claim; the claimer's

	changed broadcast.Broadcast // when it was opened anew, or is not any more
	lot     lot
	ctx     context.Context // ends with leave
	cancel  context.CancelFunc
	tended  chan struct{} // closed when nobody tends it any more; nil: nobody has
}

func newMember(s Spec, n *arakoon.Node) *member {
	m := &member{spec: s}
	m.now.Store(n) // nil: the group is away
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// node is the member as it was opened last; nil of a group that is away.
func (m *member) node() *arakoon.Node { return m.now.Load() }

// number is that of the member.
func (m *member) number() uint64 { return max(m.spec.Member, 1) }

// unclaimed is what no number of changes is: a claim that failed covers none.
const unclaimed = math.MaxUint64

// store is the group as claims see it.
func (m *member) store() Store {
	if m.spec.Link.Store != nil {
		return m.spec.Link.Store
	}
	return m.node()
}

// changes is a number that changes with the group.
func (m *member) changes() uint64 {
	if m.spec.Link.Changed != nil {
		return m.spec.Link.Changed()
	}
	return m.node().Applied()
}

// note notes which changes a claim covers: before is what changes said before the claim was
// written, and index is where it was. Without a Link all that lies before the claim in the
// log is covered, the claim too.
func (m *member) note(before, index uint64) {
	if m.claimed = index; m.spec.Link.Changed != nil {
		m.claimed = before
	}
}

// attach lets the member hear from the others.
func (m *member) attach() {
	if m.spec.Link.Attach != nil && !m.spec.Away {
		m.spec.Link.Attach(m.node())
	}
}

// members are the members that are open here, by the name of their groups.
type members struct {
	mu   sync.RWMutex
	open map[string]*member
}

func (l *members) get(name string) *member {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.open[name]
}

// all returns them in order of name.
func (l *members) all() []*member {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var list []*member
	for _, name := range slices.Sorted(maps.Keys(l.open)) {
		list = append(list, l.open[name])
	}
	return list
}

func (l *members) put(m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[m.spec.Name] = m
}

func (l *members) remove(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, name)
}

// Errors of Make and Drop that callers match with errors.Is.
var (
	// ErrUsed: the member was made here, and is here no more. Its number is lost: a member
	// that begins anew under its old number would have forgotten what it had promised.
	ErrUsed = errors.New("member number was used here")
	// ErrOther: another member of the group is here.
	ErrOther = errors.New("another member of the group is here")
)

// Make makes a member that the group has committed as a learner, which begins with an empty
// configuration. It is there, and in the record, durably, on return. One that is there already
// is left as it is.
//
// The order of the durable steps is: the member's files; in the group, the generation of this
// directory; the record; and only then does the member hear from others (Link.Attach). A member
// that is cut before the record has answered nobody, so it is no loss. A generation must have
// been claimed before: the next start asks the group which one it has seen.
func (g *Groups) Make(ctx context.Context, s Spec) error {
	if s.Member <= 1 {
		return fmt.Errorf("group %s: member %d is made with the group, and by nobody else", s.Name, s.Member)
	}
	g.making.Lock()
	defer g.making.Unlock()
	if m := g.members.get(s.Name); m != nil && !m.spec.Away {
		if m.spec.Member == s.Member {
			return nil
		}
		return fmt.Errorf("group %s: member %d: %w: number %d", s.Name, s.Member, ErrOther, m.spec.Member)
	}
	if record := g.opt.Ledger.Record(); record.Made(s.dirName()) {
		return fmt.Errorf("group %s: member %d: %w", s.Name, s.Member, ErrUsed)
	}
	parent := path.Join(g.opt.Dir, "arakoon")
	if err := errors.Join(g.opt.FS.MkdirAll(parent, 0o700), g.opt.FS.SyncDir(g.opt.Dir)); err != nil {
		return err
	}
	n, err := g.openMember(ctx, s, false, nil)
	if err != nil {
		return err
	}
	m := newMember(s, n)
	if err := g.welcome(ctx, m); err != nil {
		m.cancel()
		return errors.Join(err, n.Close())
	}
	n.MayCompact() // there is nothing older that could be put back
	m.attach()
	g.watchOver(m)
	return nil
}

// welcome tells the group of a member the generation of this directory, and the record of the
// member. What the group was told must be settled still when the record learns of the member:
// otherwise the next start would take the group for an older copy. The group may take long to
// answer, and others claim meanwhile: then it is told the newer generation.
func (g *Groups) welcome(ctx context.Context, m *member) error {
	for {
		mark := g.Mark()
		if mark.Number == 0 {
			return errors.New("no generation is claimed yet")
		}
		seq := new(arakoon.Sequence).Set(g.generationKey(), mark.Append(nil))
		err := arakoon.Patiently(ctx, func() error {
			_, _, err := m.store().Write(ctx, seq)
			return err
		})
		if err != nil {
			return fmt.Errorf("group %s: member %d: tell it generation %v: %w", m.spec.Name, m.spec.Member, mark, err)
		}
		if took, err := enter(g, m, mark.Number); took || err != nil {
			return err
		}
	}
}

// enter has the record know of a member whose group was told a generation, unless another one
// was settled since. No claim may come between.
func enter(g *Groups, m *member, told uint64) (took bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opt.Ledger.Record().Settled > told {
		return false, nil
	}
	err = g.opt.Ledger.Change(func(r *datadir.Record) { exchange(r, AwayName(m.spec.Name), m.spec.dirName()) })
	if err != nil {
		return false, err
	}
	m.claimed = unclaimed
	g.members.put(m)
	return true, nil
}

// removing is behind the name of a member's directory that is being deleted.
const removing = ".removing"

// Drop closes a member that its group has removed, and deletes its files. Whoever calls it has
// the group's own word that the number is removed: this package cannot know.
//
// The order of the durable steps is: the directory gets a name that says what is going on,
// the record forgets the member, the files go. A Drop that was cut is finished by Open, and one that
// has failed by the next call: until then the member counts as held here, and is closed. In the
// directory that the groups were made in, the record says from the second step on that the group
// is away, and claims go on in it by Link.Store.
func (g *Groups) Drop(name string, number uint64) error {
	g.making.Lock()
	defer g.making.Unlock()
	m := g.members.get(name)
	if m == nil || m.spec.Away || m.number() != number {
		return nil
	}
	m.leave()
	g.mu.Lock() // no claim meanwhile
	defer g.mu.Unlock()
	g.members.remove(name)
	if err := m.node().Close(); err != nil {
		g.opt.Logger.Warn("a member that was removed was closed with an error", "group", name, "member", number, "err", err)
	}
	if err := g.remove(m.spec); err != nil {
		g.members.put(m) // closed as it is: so the call is repeated
		return err
	}
	if g.opt.founder() {
		s := m.spec
		s.Away, s.Member = true, 0
		away := newMember(s, nil)
		away.claimed = unclaimed
		g.members.put(away)
	}
	return nil
}

// remove deletes a member that is closed, or what an earlier call has left of it.
func (g *Groups) remove(s Spec) error {
	if record := g.opt.Ledger.Record(); !record.Made(s.dirName()) {
		return g.finishDrop(s.dirName())
	}
	dir := g.dir(s)
	err := g.opt.FS.Rename(dir, dir+removing)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = g.opt.FS.Stat(dir + removing)
	}
	if err == nil {
		err = g.opt.FS.SyncDir(path.Dir(dir))
	}
	if err != nil {
		return err
	}
	return g.finishDrop(s.dirName())
}

// founder reports whether this is the data directory that the groups were made in: it goes on
// using a group whose member here was dropped.
func (o *Options) founder() bool { return o.Host == o.ID }

// exchange has a record forget a name, and learn another one unless that is "".
func exchange(r *datadir.Record, old, now string) {
	r.Groups = slices.DeleteFunc(r.Groups, func(n string) bool { return n == old })
	if now != "" && !slices.Contains(r.Groups, now) {
		r.Groups = append(r.Groups, now)
		slices.Sort(r.Groups)
	}
}

// finishDrop deletes what has the name of a directory that is being deleted.
func (g *Groups) finishDrop(name string) error {
	away := ""
	if g.opt.founder() {
		away = AwayName(groupOf(name))
	}
	if record := g.opt.Ledger.Record(); record.Made(name) {
		if err := g.opt.Ledger.Change(func(r *datadir.Record) { exchange(r, name, away) }); err != nil {
			return err
		}
	}
	dir := path.Join(g.opt.Dir, "arakoon", name)
	return errors.Join(g.opt.FS.RemoveAll(dir+removing), g.opt.FS.RemoveAll(dir+".marks"), g.opt.FS.SyncDir(path.Dir(dir)))
}

// Knows reports whether the record of a data directory knows of a group, whichever member of it
// is here, or that it is away.
func Knows(record datadir.Record, group string) bool {
	return slices.ContainsFunc(record.Groups, func(n string) bool { return n == AwayName(group) || groupOf(n) == group })
}

// groupOf is the group of a member, by the name of its directory.
func groupOf(dirName string) string {
	if i := strings.LastIndexByte(dirName, '.'); i > 0 {
		if _, err := strconv.ParseUint(dirName[i+1:], 10, 64); err == nil {
			return dirName[:i]
		}
	}
	return dirName
}

// finishDrops finishes what a Drop has left half done.
func (g *Groups) finishDrops() error {
	names, err := g.opt.FS.ReadDir(path.Join(g.opt.Dir, "arakoon"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		if name, ok := strings.CutSuffix(n, removing); ok {
			if err := g.finishDrop(name); err != nil {
				return fmt.Errorf("group %s: what is left of a member that was removed: %w", name, err)
			}
		}
	}
	return nil
}

// Holds reports whether a member is here: it is open, or has failed and may be opened anew.
func (g *Groups) Holds(name string, number uint64) bool {
	m := g.members.get(name)
	return m != nil && !m.spec.Away && m.number() == number
}

// Made reports whether the record of the data directory knows of a member: it was made here,
// and was not dropped since.
func (g *Groups) Made(name string, number uint64) bool {
	record := g.opt.Ledger.Record()
	return record.Made(Spec{Name: name, Member: number}.dirName())
}
