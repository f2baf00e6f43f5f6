package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/roster"
	"openvstorage/host/cluster"
	"openvstorage/host/members"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
)

// Options for Open. FS, Dir and Specs must be given.
type Options struct {
	FS     disk.FS
	Dir    string        // the data directory
	Specs  []groups.Spec // of the cluster's groups: names and functions
	Groups []string      // those that are to be recovered; none: all that are here
	// From is what they go on with: the members that are here, or, for one group that has none
	// here any more beside others that are alone, a backup or nothing.
	From   From
	Backup func() (io.ReadCloser, error) // from its beginning; with FromBackup
	Logger *slog.Logger
	// Ask says whether a host answers, as cluster.Probe.Answers does; for tests. nil: it is
	// asked by its addresses.
	Ask func(ctx context.Context, host uuid.UUID, address string) error
}

// Errors of this package that callers match with errors.Is.
var (
	// ErrMajority: a group has a majority that answers.
	ErrMajority = errors.New("the group needs no recovery")
	// ErrNothing: the data directory holds no member that can be recovered.
	ErrNothing = errors.New("nothing to recover")
	// ErrUnfinished: a recovery was begun in the data directory, and has not ended.
	ErrUnfinished = errors.New("a recovery has begun and has not ended")
)

// Plan is what a recovery will do.
type Plan struct {
	Cluster uuid.UUID `json:"cluster"`
	Host    uuid.UUID `json:"host"`
	Life    uint64    `json:"life"` // of the groups from then on
	Groups  []Group   `json:"groups"`
	GivenUp []Other   `json:"given_up"`          // hosts that hold members of these groups
	Lacks   []string  `json:"lacks"`             // what is not on this host, in words
	Resumes bool      `json:"resumes,omitempty"` // it was begun before
	Aside   string    `json:"put_aside,omitempty"`
}

// Group is a group that is to be recovered, as the member here has it.
type Group struct {
	Name      string `json:"group"`
	Member    uint64 `json:"member"`
	Life      uint64 `json:"life"`
	Last      uint64 `json:"last"` // the last entry of its log
	Term      uint64 `json:"term"` // of that entry
	Committed uint64 `json:"committed"`
	Members   string `json:"members"`
	InSync    bool   `json:"in_sync"`
	Learner   bool   `json:"learner"`        // others are voters, and InSync says whether it has all that they answered
	Next      uint64 `json:"next"`           // the first member number that was never used, as far as the member knows
	Zones     string `json:"zones"`          // that had to hold everything, in words
	Done      bool   `json:"done,omitempty"` // in an earlier try
	Missing   string `json:"missing"`        // what may be missing, in words

	// Of a group that is made anew.
	From     From   `json:"from,omitempty"`
	Revision uint64 `json:"revision,omitempty"` // of the backup
	OfLife   uint64 `json:"of_life,omitempty"`  // of the backup
	Keys     uint64 `json:"keys,omitempty"`     // in the backup
	By       uint64 `json:"by,omitempty"`       // how far numbers go on behind those of the backup

	survivor arakoon.Survivor
	dir      string
	spec     groups.Spec
}

// Other is a host that is given up.
type Other struct {
	Host      uuid.UUID `json:"host"`
	Zone      string    `json:"zone,omitempty"`
	Addresses []string  `json:"addresses"`
	State     string    `json:"state"` // what became of asking it
	answers   bool
}

// Recovery is a data directory that is about to be recovered. It is for one goroutine.
type Recovery struct {
	o    Options
	dir  *datadir.Directory
	file *roster.File
	plan Plan
}

// Open claims a data directory that no process uses, and finds out what a recovery would do.
// It asks the other hosts of its groups.
func Open(ctx context.Context, o Options) (_ *Recovery, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if _, err := o.FS.Stat(path.Join(o.Dir, datadir.FormatFile)); err != nil {
		return nil, fmt.Errorf("%w: %s is no data directory: %w", ErrNothing, o.Dir, err)
	}
	r := &Recovery{o: o}
	if r.dir, err = datadir.Open(o.FS, o.Dir); err != nil {
		return nil, err
	}
	if err := r.look(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close gives the data directory up.
func (r *Recovery) Close() error { return r.dir.Close() }

// Plan says what Run will do.
func (r *Recovery) Plan() Plan { return r.plan }

// look makes the plan.
func (r *Recovery) look(ctx context.Context) (err error) {
	record := r.dir.Record()
	p := &r.plan
	if p.Host, p.Cluster = r.dir.ID, record.Cluster; p.Cluster == uuid.Nil {
		p.Cluster = r.dir.ID
	}
	if r.file, err = members.LoadRoster(r.o.FS, r.o.Dir, p.Cluster); err != nil {
		return err
	}
	begun, err := readDecision(r.o.FS, r.o.Dir)
	if err != nil {
		return err
	}
	if p.Resumes = begun != nil && !begun.Done; p.Resumes {
		if begun.from() != r.o.From || len(r.o.Groups) > 0 && !sameNames(r.o.Groups, begun.names()) {
			return fmt.Errorf("%w: of the groups %s: finish it with `ovs recover %s--data %s`", ErrUnfinished, strings.Join(begun.names(), ", "), begun.flags(), r.o.Dir)
		}
		r.o.Groups = begun.names()
	}
	if r.o.From != FromSurvivor {
		return r.lookAnew(ctx, begun)
	}
	if err := r.survey(); err != nil {
		return err
	}
	if p.Life = r.life(record.Life); p.Resumes {
		p.Life = begun.Life
	}
	for i := range p.Groups {
		g := &p.Groups[i]
		if p.Resumes { // members that the first try has removed are not in the log's end any more
			for _, was := range begun.Groups {
				if was.Name == g.Name {
					g.Next = max(g.Next, was.Next)
				}
			}
		}
		g.Done = p.Resumes && g.Life == p.Life && g.survivor.Alone()
		g.Missing = g.missing(r.zones(g.Name))
	}
	if p.Resumes {
		p.GivenUp = begun.GivenUp
	} else if err := r.others(ctx); err != nil {
		return err
	}
	if !p.Resumes && !slices.ContainsFunc(p.Groups, func(g Group) bool { return !g.survivor.Alone() }) {
		return fmt.Errorf("%w: every group is this host's alone: start it with `ovs up`", ErrMajority)
	}
	if p.Host != p.Cluster {
		p.Lacks = append(p.Lacks, "the disks and the vDisks of the first host: they are not on other hosts in this release")
	}
	if _, err := r.o.FS.Stat(path.Join(r.o.Dir, "trust", "passphrase")); absent(err) && p.Host != p.Cluster {
		p.Lacks = append(p.Lacks, "the passphrase of the cluster's authority: give it with --ca-passphrase-file or --ca-passphrase-command, or no host can join")
	}
	return nil
}

// survey looks at the members here.
func (r *Recovery) survey() error {
	for _, name := range r.o.Groups {
		if !slices.ContainsFunc(r.o.Specs, func(s groups.Spec) bool { return s.Name == name }) {
			return fmt.Errorf("%w: group %q is not known to this release", ErrNothing, name)
		}
	}
	for _, s := range r.o.Specs {
		if len(r.o.Groups) > 0 && !slices.Contains(r.o.Groups, s.Name) {
			continue
		}
		number, dir := members.Here(r.dir, s.Name)
		if number == 0 {
			if len(r.o.Groups) > 0 {
				return fmt.Errorf("%w: %s has no member of group %s", ErrNothing, r.o.Dir, s.Name)
			}
			continue
		}
		g := Group{Name: s.Name, Member: number, dir: dir, spec: s}
		var err error
		if g.survivor, err = arakoon.Survey(r.options(&g)); err != nil {
			return fmt.Errorf("group %s: %w", s.Name, err)
		}
		v := g.survivor
		g.Life, g.Last, g.Term, g.Committed, g.Members, g.InSync = v.Life, v.Last, v.Term, v.Committed, v.Members.String(), v.InSync
		g.Learner = slices.Contains(v.Members.Learners, v.Member)
		g.Next = number + 1
		for _, id := range v.Members.All() {
			g.Next = max(g.Next, id+1)
		}
		r.plan.Groups = append(r.plan.Groups, g)
	}
	if len(r.plan.Groups) == 0 {
		return fmt.Errorf("%w: %s holds no member of a group", ErrNothing, r.o.Dir)
	}
	return r.needsConfig()
}

// needsConfig refuses where the config group, which has the roster, would not be this host's
// alone: the later life could not be told to anybody.
func (r *Recovery) needsConfig() error {
	if slices.ContainsFunc(r.plan.Groups, func(g Group) bool { return g.Name == members.Config }) {
		return nil
	}
	number, dir := members.Here(r.dir, members.Config)
	if number == 0 {
		return fmt.Errorf("%w: this host has no member of group %s, which has the roster: recover on one that has", ErrNothing, members.Config)
	}
	s, err := arakoon.Survey(r.options(&Group{Name: members.Config, Member: number, dir: dir}))
	if err == nil && !s.Alone() {
		err = fmt.Errorf("%w: group %s has %v: recover it too, as it has the roster", ErrNothing, members.Config, s.Members)
	}
	return err
}

// options are those of a member here.
func (r *Recovery) options(g *Group) arakoon.Options {
	return arakoon.Options{
		FS: r.o.FS, Dir: g.dir, Cluster: groups.Cluster(r.plan.Cluster, g.Name), Member: g.Member, Functions: g.spec.Functions, Group: g.Name,
		Existing: true, Generation: r.dir.Record().Generation, SegmentBytes: 4 << 20, Logger: r.o.Logger,
	}
}

// life is one above all that this host has seen.
func (r *Recovery) life(recorded uint64) uint64 {
	for _, g := range r.file.Now().Groups {
		recorded = max(recorded, g.Life)
	}
	for _, g := range r.plan.Groups {
		recorded = max(recorded, g.Life)
	}
	return recorded + 1
}

// zones are those that the members of a group are in, and whether another of them is in the
// zone of this host: then that one may hold what the member here does not.
func (r *Recovery) zones(name string) (number int, shared bool) {
	now := r.file.Now()
	g, _ := now.Group(name)
	here, _ := now.Host(r.plan.Host)
	names := map[string]bool{}
	for _, m := range g.Members {
		h, _ := now.Host(m.Host)
		names[h.Zone] = true
		shared = shared || m.Host != r.plan.Host && h.Zone == here.Zone
	}
	return len(names), shared || here.Zone == ""
}

// missing says in words what a member may lack. zones is how many its group's members are in,
// shared whether another one is in the zone of this one.
func (g *Group) missing(zones int, shared bool) string {
	s := g.survivor
	q := s.Requirement
	if g.Zones = "no requirement"; q.Since > 0 {
		g.Zones = q.String()
	}
	if !s.Alone() && q.Zones > 1 && zones <= q.Zones && !shared {
		return fmt.Sprintf("nothing that was answered since revision %d: each of %d zones had to hold it first; unless a person has lowered that where the majority was, by `ovs recover --require-zones`, without this host", q.Since, q.Zones)
	}
	if !s.Alone() && q.Lowered > 0 && q.Zones < q.From {
		return fmt.Sprintf("the requirement of %d zones was lowered at revision %d: what was answered behind that without this host, from entry %d on, is missing", q.From, q.Lowered, s.Last+1)
	}
	switch {
	case s.Alone():
		return "nothing"
	case g.InSync:
		return fmt.Sprintf("nothing that was answered while this host was in sync, and as of entry %d it was; if the other host went on alone after that, it said so in `ovs status` there, and what it answered from then on is missing", s.Last)
	case g.Learner && len(s.Members.Voters) == 1:
		return fmt.Sprintf("this host was not in sync: what was answered behind entry %d is missing", s.Last)
	}
	return fmt.Sprintf("what the other voters answered without this one, behind entry %d of term %d: of several hosts that survive, recover the one with the highest term, and then entry", s.Last, s.Term)
}

// others asks the other hosts that hold members of the groups, and refuses if a group can go on
// without a recovery.
func (r *Recovery) others(ctx context.Context) error {
	ask := r.o.Ask
	now := r.file.Now()
	for _, h := range now.Hosts {
		if h.ID == r.plan.Host || !r.holds(h.ID) {
			continue
		}
		if ask == nil {
			probe, err := cluster.NewProbe(cluster.Options{FS: r.o.FS, Dir: r.dir, Logger: r.o.Logger}, r.plan.Cluster)
			if err != nil {
				return fmt.Errorf("the other hosts cannot be asked whether they are there: %w", err)
			}
			defer probe.Close()
			ask = probe.Answers
		}
		o := Other{Host: h.ID, Zone: h.Zone, Addresses: h.Addresses, State: "away"}
		for _, a := range h.Addresses {
			if err := ask(ctx, h.ID, a); err == nil {
				o.answers, o.State = true, "answers at "+a
			} else if !errors.Is(err, cluster.ErrAway) {
				o.answers, o.State = true, err.Error()
			}
		}
		r.plan.GivenUp = append(r.plan.GivenUp, o)
	}
	for _, g := range r.plan.Groups {
		if err := r.needed(g); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// holds reports whether a host holds a member of a group that is to be recovered.
func (r *Recovery) holds(host uuid.UUID) bool {
	return slices.ContainsFunc(r.plan.Groups, func(g Group) bool {
		of, _ := r.file.Now().Group(g.Name)
		_, on := of.MemberOn(host)
		return on
	})
}

// needed refuses a recovery of a group whose voters can go on, with this member or without it.
func (r *Recovery) needed(g Group) error {
	if g.survivor.Alone() {
		return nil
	}
	now := r.file.Now()
	var there []string
	for _, voters := range [][]uint64{g.survivor.Members.Voters, g.survivor.Members.Outgoing} {
		count := 0
		for _, id := range voters {
			if id == g.Member {
				count++
				continue
			}
			h, known := now.Place(g.Name, id)
			i := slices.IndexFunc(r.plan.GivenUp, func(o Other) bool { return known && o.Host == h.ID })
			if i >= 0 && r.plan.GivenUp[i].answers {
				count++
				there = append(there, fmt.Sprintf("host %s (%s)", h.ID, r.plan.GivenUp[i].State))
			}
		}
		if len(voters) > 0 && count <= len(voters)/2 {
			return nil
		}
	}
	if len(there) == 0 {
		return fmt.Errorf("%w: group %s goes on with the voter that is here: start this host with `ovs up`, and remove hosts that are lost with `ovs host remove H --lost`", ErrMajority, g.Name)
	}
	return fmt.Errorf("%w: group %s has the voters %v, and a majority is there with %s: start this host with `ovs up`; or if they must never run again, stop them first",
		ErrMajority, g.Name, g.survivor.Members.Voters, strings.Join(there, ", "))
}

// Check refuses a data directory in which a recovery was begun and has not ended.
func Check(fsys disk.FS, dir string) error {
	d, err := readDecision(fsys, dir)
	if err == nil && d != nil && !d.Done {
		err = fmt.Errorf("data directory %s: %w: some groups may be of life %d and others not yet: run `ovs recover %s--data %s` again", dir, ErrUnfinished, d.Life, d.flags(), dir)
	}
	return err
}

func sameNames(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
