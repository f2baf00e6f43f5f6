package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/host/members"
)

// From is what a group goes on with.
type From string

// What a group can go on with.
const (
	FromSurvivor From = ""        // the member that is here
	FromBackup   From = "backup"  // what it held when a backup of it was taken
	FromNothing  From = "nothing" // it begins with nothing
)

// ErrWay: a group is not made anew alone in this way, and the error says why.
var ErrWay = errors.New("not in this way")

const nsmPrefix = "nsm-"

// mayMake says which groups are made anew alone, and from what. The others of the data
// directory go on as they are; so what these name of the lost group must be refused, and not
// be taken for garbage or given out again.
func mayMake(group string, from From) error {
	why := ""
	switch {
	case strings.HasPrefix(group, nsmPrefix), group == members.Config && from == FromBackup:
		return nil
	case group == members.Config:
		why = "it has the names of vDisks, whom each belongs to, the hosts and the authority, and nothing else has them: what vDisks have stored could be found by nobody. Restore it from a backup"
	case from == FromBackup:
		why = "objects name disks and namespaces by the numbers that it gives out, and its queue says what each NSM host was told: it goes together with them alone. Restore all groups from one backup of all: `ovs restore metadata`"
	default:
		why = "disks do not know their numbers, nor namespaces their names, by which all that is stored is found: nothing of it could be read again. Restore all groups from a backup: `ovs restore metadata`"
	}
	return fmt.Errorf("%w: group %s is not made from %s alone; nothing was changed: %s", ErrWay, group, from, why)
}

// sole is a data directory of which one group is to be made anew, and the others are there.
type sole struct {
	*Recovery
	g        Group
	standing []Group // the other groups
}

// lookAnew makes the plan of making one group anew.
func (r *Recovery) lookAnew(ctx context.Context, begun *decision) error {
	if len(r.o.Groups) != 1 {
		return fmt.Errorf("%w: one group at a time is made from %s: of several, restore all: `ovs restore metadata`", ErrWay, r.o.From)
	}
	s := sole{Recovery: r}
	if err := s.find(r.o.Groups[0]); err != nil {
		return err
	}
	if err := s.others(); err != nil {
		return err
	}
	record, p := r.dir.Record(), &r.plan
	var of *held
	if r.o.From == FromBackup {
		var err error
		if of, err = readBackup(r.o.Backup, s.g.Name, groups.Cluster(p.Cluster, s.g.Name)); err != nil {
			return err
		}
		s.g.Revision, s.g.OfLife, s.g.Keys = of.info.Index, of.info.Life, of.info.Keys
	}
	if p.Resumes {
		was := begun.Groups[0]
		if s.g.Revision != was.Revision || s.g.OfLife != was.OfLife || s.g.Keys != was.Keys {
			return fmt.Errorf("%w: from the backup of revision %d and life %d, and this one is of revision %d and life %d: finish it with that one", ErrUnfinished, was.Revision, was.OfLife, s.g.Revision, s.g.OfLife)
		}
		s.g, p.Life = was, begun.Life
		s.g.dir, s.g.spec = r.at(s.g.Name)
	} else {
		if err := s.vacant(); err != nil {
			return err
		}
		p.Groups = append(slices.Clone(s.standing), s.g)
		// A restore of all raises the generation by 1<<32, so that also says how often there was one.
		p.Life = max(r.life(max(record.Life, s.g.OfLife)), record.Generation>>32+1)
		s.g.By = (p.Life-s.g.OfLife)<<32 + rand.Uint64N(1<<31)
	}
	if err := s.explain(ctx, of); err != nil {
		return err
	}
	p.Groups = []Group{s.g}
	return nil
}

// at is where a group's member is, and what it is.
func (r *Recovery) at(name string) (dir string, spec groups.Spec) {
	_, dir = members.Here(r.dir, name)
	i := slices.IndexFunc(r.o.Specs, func(s groups.Spec) bool { return s.Name == name })
	return dir, r.o.Specs[i]
}

// find finds out which member is to be made anew.
func (s *sole) find(name string) error {
	if !slices.ContainsFunc(s.o.Specs, func(spec groups.Spec) bool { return spec.Name == name }) {
		return fmt.Errorf("%w: group %q is not known to this release", ErrNothing, name)
	}
	if err := mayMake(name, s.o.From); err != nil {
		return err
	}
	if of := s.dir.Record().Cluster; of != uuid.Nil {
		return fmt.Errorf("%w: %s is that of a host which has joined cluster %s: a group is made anew in the first host's", ErrWay, s.o.Dir, of)
	}
	number, _ := members.Here(s.dir, name)
	if number == 0 {
		return fmt.Errorf("%w: by its record, %s never had a member of group %s, or it was moved to other hosts", ErrNothing, s.o.Dir, name)
	}
	s.g = Group{Name: name, Member: number, From: s.o.From, Next: number + 1}
	s.g.dir, s.g.spec = s.at(name)
	now := s.file.Now()
	g, _ := now.Group(name)
	s.g.Next = max(s.g.Next, g.Next)
	for _, m := range g.Members {
		if m.Host != s.plan.Host {
			return fmt.Errorf("%w: group %s has member %d on host %s, which has more of it than there is here: run `ovs recover` there. If that host is lost too, restore all groups from a backup of all: `ovs restore metadata`", ErrWay, name, m.ID, m.Host)
		}
	}
	return nil
}

// others looks that the other groups are here, and each has no other member.
func (s *sole) others() error {
	for _, spec := range s.o.Specs {
		if spec.Name == s.g.Name {
			continue
		}
		number, dir := members.Here(s.dir, spec.Name)
		if number == 0 {
			if groups.Knows(s.dir.Record(), spec.Name) {
				return fmt.Errorf("%w: the members of group %s are on other hosts: run `ovs recover` there, or restore all groups from a backup of all: `ovs restore metadata`", ErrWay, spec.Name)
			}
			continue
		}
		g := Group{Name: spec.Name, Member: number, dir: dir, spec: spec}
		var err error
		if g.survivor, err = arakoon.Survey(s.options(&g)); err != nil {
			return fmt.Errorf("group %s is to go on as it is beside %s: %w. If it is lost too, restore all groups from a backup of all: `ovs restore metadata`", spec.Name, s.g.Name, err)
		}
		if !g.survivor.Alone() {
			return fmt.Errorf("%w: group %s has %v, also on other hosts, and these may have a member of group %s: run `ovs recover` there, or restore all groups from a backup of all: `ovs restore metadata`", ErrWay, spec.Name, g.survivor.Members, s.g.Name)
		}
		g.Life = g.survivor.Life
		s.standing = append(s.standing, g)
	}
	if len(s.standing) == 0 {
		return fmt.Errorf("%w: %s has no other group: restore it from a backup of all: `ovs restore metadata`", ErrWay, s.o.Dir)
	}
	return nil
}

// vacant refuses where there is something in the place of the lost member.
func (s *sole) vacant() error {
	for _, name := range []string{s.g.dir, s.g.dir + ".marks"} {
		if _, err := s.o.FS.Stat(name); err == nil {
			return fmt.Errorf("%w: %s is there. Nothing is made over what is there: if group %s is lost, move both %s and %s.marks away first", arakoon.ErrExists, name, s.g.Name, s.g.dir, s.g.dir)
		} else if !absent(err) {
			return err
		}
	}
	return nil
}

// finished reports whether an earlier try has made the group.
func (r *Recovery) finished(g *Group) bool {
	s, err := arakoon.Survey(r.options(g))
	return err == nil && s.Life == r.plan.Life && s.Alone()
}

// makeAnew makes a group of one member, beside the others of the data directory.
func (r *Recovery) makeAnew(ctx context.Context, g *Group, began time.Time) error {
	if err := r.putAside(); err != nil {
		return err
	}
	if g.Done = r.finished(g); g.Done {
		return nil
	}
	change, err := r.changeOf(ctx, g)
	if err != nil {
		return err
	}
	from := groups.FromBackup
	if g.From == FromNothing {
		from = groups.FromNothing
	}
	change.Set[groups.RecoveryKey] = groups.Recovery{From: from, Time: began, Life: r.plan.Life, Revision: g.Revision, OfLife: g.OfLife}.Append(nil)
	backup, err := r.source(ctx, g)
	if err != nil {
		return err
	}
	defer backup.Close()
	info, err := arakoon.RestoreChanged(arakoon.Options{
		FS: r.o.FS, Dir: g.dir, Cluster: groups.Cluster(r.plan.Cluster, g.Name), Member: g.Member, Life: r.plan.Life, Generation: r.dir.Record().Generation,
	}, reading{ctx, backup}, change)
	if err == nil && g.From == FromBackup && (info.Index != g.Revision || info.Life != g.OfLife) {
		err = fmt.Errorf("the backup was another one when it was read first: revision %d, and now %d", g.Revision, info.Index)
	}
	return err
}

// reading is a backup that is read until ctx ends.
type reading struct {
	ctx context.Context
	io.Reader
}

func (r reading) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// putAside puts out of the way what has no meaning beside the group: pages of maps, which come
// from the backend again. It can be done again.
func (r *Recovery) putAside() error {
	aside := path.Join(r.o.Dir, fmt.Sprintf("before-recovery-%d", r.plan.Life))
	for _, name := range []string{"map", "scrub"} {
		from := path.Join(r.o.Dir, name)
		if _, err := r.o.FS.Stat(from); absent(err) {
			continue
		} else if err != nil {
			return err
		}
		if err := r.o.FS.MkdirAll(aside, 0o700); err != nil {
			return err
		}
		if err := r.o.FS.Rename(from, path.Join(aside, name)); err != nil {
			return err
		}
		if err := r.o.FS.SyncDir(aside); err != nil {
			return err
		}
		r.plan.Aside = aside
	}
	return r.o.FS.SyncDir(r.o.Dir)
}
