package rebuild

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// Options say what is rebuilt. Namespace, Generation, Host and Fleet must be given.
type Options struct {
	Namespace  uint64 // its number
	Generation uint64 // of its recovery, as the ABM's record has it
	Host       *nsm.Client
	Fleet      *fleet.Fleet // all disks that are not given up, the missing ones among them
	// MayMiss is how many nodes may have missing disks: the m of the weakest policy. With more,
	// objects may be unseen, and Run refuses with ErrMissing.
	MayMiss int
	Names   int // names in memory, about 1 KiB each; default 50,000. With more, the disks are read several times
	Told    int // findings that are told by name; default 1000
}

// ErrMissing is matched by the error for too many nodes that cannot be asked.
var ErrMissing = errors.New("too many nodes are missing to know what there was; bring their disks back, or give them up")

// Finding is an object that was not entered.
type Finding struct {
	Name   string // "": no record says it
	Object manifest.ObjectID
	Why    string
}

// Report is what a rebuild has found.
type Report struct {
	Entered  int       // objects
	Missing  int       // nodes that could not be asked
	NotThere int       // objects that were not entered
	Findings []Finding // of them, the first Options.Told
}

// Clean reports whether every object that the disks know of was entered.
func (r *Report) Clean() bool { return r.NotThere == 0 && r.Missing == 0 }

func (r *Report) tell(most int, f Finding) {
	if r.NotThere++; len(r.Findings) < most {
		r.Findings = append(r.Findings, f)
	}
}

// Run enters in the host what the disks have of a namespace, and has the host serve it. It can
// be called again after any error. For a namespace that the host serves already it does nothing.
// A disk that fails in the middle ends it with an error.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Names == 0 {
		o.Names = 50_000
	}
	if o.Told == 0 {
		o.Told = 1000
	}
	fail := func(err error) (*Report, error) {
		return nil, fmt.Errorf("rebuild of namespace %d from the disks: %w", o.Namespace, err)
	}
	rec, err := o.Host.Record(ctx, o.Namespace, userfn.Consistent)
	if err != nil {
		return fail(err)
	}
	if rec.State == nsm.NamespaceActive && rec.Generation == o.Generation {
		return &Report{Entered: int(rec.Objects)}, nil
	}
	disks, missing := reachable(o.Fleet)
	if missing > o.MayMiss {
		return fail(fmt.Errorf("%d nodes, and %d may be: %w", missing, o.MayMiss, ErrMissing))
	}
	for parts := uint32(1); ; parts *= 2 {
		b := &build{Options: o, disks: disks, report: Report{Missing: missing}, after: rec.Changes, version: rec.NextVersion}
		err := b.all(ctx, parts)
		if errors.Is(err, errMany) {
			if rec, err = o.Host.Record(ctx, o.Namespace, userfn.Consistent); err != nil {
				return fail(err)
			}
			continue
		}
		if err != nil {
			return fail(err)
		}
		if _, err := (nsm.Moves{Client: o.Host}).Activate(ctx, o.Namespace, o.Generation, nsm.Namespace{}); err != nil {
			return fail(err)
		}
		return &b.report, nil
	}
}

// reachable returns the disks that can be asked, and how many nodes have one that cannot.
func reachable(f *fleet.Fleet) (disks []*fleet.Disk, missing int) {
	nodes := make(map[string]bool)
	for _, d := range f.All() {
		if d.Missing() == nil {
			disks = append(disks, d)
		} else {
			nodes[d.Node] = true
		}
	}
	return disks, len(nodes)
}

var errMany = errors.New("too many names for the memory")

// build is one pass over all names, in parts.
type build struct {
	Options
	disks   []*fleet.Disk
	report  Report
	after   uint64 // the change that was entered last
	version uint64 // the next for an object of which no version is known
	batch   []nsm.Moved
}

// all goes through the names in so many parts, by their hash.
func (b *build) all(ctx context.Context, parts uint32) error {
	for part := range parts {
		if err := b.part(ctx, part, parts); err != nil {
			return err
		}
	}
	return b.flush(ctx)
}

func (b *build) part(ctx context.Context, part, parts uint32) error {
	var lists []*listing
	for _, d := range b.disks {
		lists = append(lists, list(d, b.Namespace, 'o'), list(d, b.Namespace, 'r'))
	}
	names := make(map[string]*decision)
	for {
		f, err := next(ctx, lists)
		if err != nil {
			return err
		}
		if f == nil {
			break
		}
		found, err := f.candidates(ctx)
		if err != nil {
			return err
		}
		if len(found) == 0 && len(f.fragments) > 0 && part == 0 {
			b.report.tell(b.Told, Finding{Object: f.id, Why: fmt.Sprintf("%d fragments have no recovery record that can be read", len(f.fragments))})
		}
		for _, c := range found {
			if partOf(c.m.Name, parts) != part {
				continue
			}
			d := names[c.m.Name]
			if d == nil {
				if len(names) == b.Names {
					return errMany
				}
				d = new(decision)
				names[c.m.Name] = d
			}
			d.add(c)
		}
	}
	for name, d := range names {
		if err := b.enter(ctx, name, d); err != nil {
			return err
		}
	}
	return nil
}

func partOf(name string, parts uint32) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32() % parts
}

// enter has the name be what was decided, whatever an earlier run made of it.
func (b *build) enter(ctx context.Context, name string, d *decision) error {
	b.batch = append(b.batch, nsm.Moved{Name: name})
	if why := d.verdict(); why != "" {
		b.report.tell(b.Told, Finding{Name: name, Object: d.best.m.Object, Why: why})
	} else {
		o, err := d.best.object(&b.version)
		if err != nil {
			return err
		}
		b.batch = append(b.batch, nsm.Moved{Name: name, Object: o})
		b.report.Entered++
	}
	if len(b.batch) >= batchMax-1 {
		return b.flush(ctx)
	}
	return nil
}

// batchMax bounds what is entered in one call, so that it has at most about 2 MiB.
const batchMax = nsm.MaxImport / 2

func (b *build) flush(ctx context.Context) error {
	if len(b.batch) == 0 {
		return nil
	}
	_, err := (nsm.Moves{Client: b.Host}).ImportChanges(ctx, b.Namespace, b.Generation, nsm.Changes{After: b.after, Last: b.after + 1, Objects: b.batch})
	b.batch = b.batch[:0]
	b.after++
	return err
}

// object is the candidate as the host has it. An object of which no version is known gets the
// next one, which is new: what is known of it is too little to keep two apart.
func (c *candidate) object(version *uint64) (*nsm.Object, error) {
	if c.exact {
		c.m.Version = c.version
	} else {
		c.m.Version = *version
		*version++
	}
	encoded, err := c.m.Append(nil)
	if err != nil {
		return nil, err
	}
	o := &nsm.Object{
		Name: c.m.Name, ID: c.m.Object, Version: c.m.Version, Revision: c.m.Revision, Epoch: c.m.Epoch, Size: c.m.Size, Hash: c.hash,
		Time: c.m.Time, Manifest: encoded, ManifestSize: uint32(len(encoded)),
	}
	if c.m.Inlined {
		return o, nil
	}
	o.Policy = nsm.Policy(c.m.Policy)
	for _, k := range c.m.Chunks {
		chunk := nsm.Chunk{Length: k.Shard}
		for _, f := range k.Fragments {
			chunk.Fragments = append(chunk.Fragments, nsm.Fragment{OSD: f.OSD, Version: f.Version})
		}
		o.Chunks = append(o.Chunks, chunk)
	}
	return o, nil
}
