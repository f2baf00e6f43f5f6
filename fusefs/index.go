package fusefs

import (
	"context"
	"hash/maphash"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"openvstorage/fusefs/filetree"
)

// index is the names of vDisks and snapshots as directories. It is made anew when
// one has come, gone or got another name: the pool counts that.
type index struct {
	mu     sync.Mutex
	listed uint64
	made   bool
	disks  map[string]*branch // of DIR
	snaps  map[string]*branch // of .snapshots/DIR, by DIR
	names  map[uuid.UUID]string

	// stay are vDisks that come to a file which is there, or go from one that stays:
	// to its directory nothing happens. true: it has happened.
	stay map[uuid.UUID]bool

	// times of directories that were changed since the mount, by path; they are
	// kept in the tree soon after.
	times map[string]dirTime
}

// branch is what vDisks' names are in a directory.
type branch struct {
	list   []entry // in order of names, no name twice
	holds  map[entry]bool
	digest uint64 // of the files, in any order
}

// dirTime is when a directory was changed.
type dirTime struct {
	at   int64 // nanoseconds since 1970
	kept bool
}

var digestSeed = maphash.MakeSeed()

// add adds a name, of the thing that id tells from others.
func (b *branch) add(e entry, id ...string) {
	if e.dir && b.holds[e] {
		return
	}
	if b.holds == nil {
		b.holds = map[entry]bool{}
	}
	if !e.dir {
		b.digest += digest(e.name, id...)
	}
	if !b.holds[e] {
		b.holds[e] = true
		b.list = append(b.list, e)
	}
}

// digest is what a file adds to that of its directory.
func digest(name string, id ...string) uint64 {
	return maphash.String(digestSeed, name+"/"+strings.Join(id, "/"))
}

func branchOf(all map[string]*branch, dir string) *branch {
	b := all[dir]
	if b == nil {
		b = &branch{}
		all[dir] = b
	}
	return b
}

// look returns the index as it is now. It waits for no I/O. Directories that have
// changed since the last look get the time of this one.
func (f *FS) look(ctx context.Context) (*index, error) {
	x := &f.index
	x.mu.Lock()
	defer x.mu.Unlock()
	listed := f.pool.Listed()
	if x.made && listed == x.listed {
		return x, nil
	}
	infos, err := f.pool.List(ctx)
	if err != nil {
		return nil, err
	}
	disks, snaps, names := map[string]*branch{"": {}}, map[string]*branch{"": {}}, make(map[uuid.UUID]string, len(infos))
	for _, i := range infos {
		names[i.ID] = i.Name
		dir, base := splitPath(i.Name)
		branchOf(disks, dir).add(entry{base + suffix, false}, i.ID.String())
		for sub := i.Name; ; {
			up, name := splitPath(sub)
			branchOf(snaps, up).add(entry{name, true})
			if sub != i.Name {
				branchOf(disks, sub)
				branchOf(disks, up).add(entry{name, true})
			}
			if up == "" {
				break
			}
			sub = up
		}
		of := branchOf(snaps, i.Name)
		for _, s := range i.Snapshots {
			of.add(entry{s.Name + suffix, false}, i.ID.String(), strconv.FormatInt(s.Created, 10))
		}
	}
	if x.made {
		now := time.Now().UnixNano()
		x.settleStay(names)
		x.compare(x.disks, disks, "", now, func(dir string) bool {
			_, kept := f.tree.Get(dir)
			return kept // it is there whatever is below it
		})
		x.compare(x.snaps, snaps, snapshotsDir, now, func(string) bool { return false })
	}
	x.listed, x.made, x.disks, x.snaps, x.names = listed, true, disks, snaps, names
	return x, nil
}

// settleStay has those vDisks be there before, or not, whose coming or going is none of
// a file. x.mu is held.
func (x *index) settleStay(names map[uuid.UUID]string) {
	for id, happened := range x.stay {
		was, had := x.names[id]
		is, has := names[id]
		if had != has {
			dir, base := splitPath(was + is) // one of them is ""
			sum := digest(base+suffix, id.String())
			if had {
				sum = -sum
			}
			branchOf(x.disks, dir).digest += sum
		}
		if had != has || happened {
			delete(x.stay, id)
		}
	}
}

// stays notes that a vDisk will come to a file that is there, or go from one that
// stays. done is called when that has happened, or has not.
func (f *FS) stays(id uuid.UUID) (done func(happened bool)) {
	f.index.mu.Lock()
	defer f.index.mu.Unlock()
	f.index.stay[id] = false
	return func(happened bool) {
		f.index.mu.Lock()
		defer f.index.mu.Unlock()
		if _, due := f.index.stay[id]; !due {
			return
		}
		if delete(f.index.stay, id); happened {
			f.index.stay[id] = true
		}
	}
}

// compare gives directories that differ a time, and those in which one has come or
// gone, unless it stays anyway. x.mu is held.
func (x *index) compare(old, now map[string]*branch, below string, at int64, stays func(dir string) bool) {
	differs := func(dir string, was, is *branch) {
		var before, after uint64
		if was != nil {
			before = was.digest
		}
		if is != nil {
			after = is.digest
		}
		if before != after {
			x.touch(at, join(below, dir))
		}
		if (was == nil || is == nil) && dir != "" && !stays(dir) {
			up, _ := splitPath(dir)
			x.touch(at, join(below, up))
		}
	}
	for dir, is := range now {
		differs(dir, old[dir], is)
	}
	for dir, was := range old {
		if now[dir] == nil {
			differs(dir, was, nil)
		}
	}
}

// touch sets the time of directories. x.mu is held.
func (x *index) touch(at int64, dirs ...string) {
	for _, dir := range dirs {
		x.times[dir] = dirTime{at: max(at, x.times[dir].at)}
	}
}

// touchDirs notes that something was made, removed or renamed in directories at a time.
func (f *FS) touchDirs(at int64, dirs ...string) {
	f.index.mu.Lock()
	defer f.index.mu.Unlock()
	f.index.touch(at, dirs...)
}

// dirChanged is when a directory was changed since the mount, 0 if it was not.
func (f *FS) dirChanged(dir string) int64 {
	f.index.mu.Lock()
	defer f.index.mu.Unlock()
	return f.index.times[dir].at
}

// forgetTimes forgets what is known of a directory that is gone.
func (f *FS) forgetTimes(dir string) {
	f.index.mu.Lock()
	defer f.index.mu.Unlock()
	delete(f.index.times, dir)
}

// keptTime forgets the time that a directory had if its entry has all of it.
func (f *FS) keptTime(dir string, at int64) {
	f.index.mu.Lock()
	defer f.index.mu.Unlock()
	if f.index.times[dir].at <= at {
		delete(f.index.times, dir)
	}
}

// timesMoved has the times of directories follow a renaming.
func (f *FS) timesMoved(from, to string) {
	f.index.mu.Lock()
	defer f.index.mu.Unlock()
	for dir, t := range f.index.times {
		if rest, ok := strings.CutPrefix(dir, from); ok && (rest == "" || rest[0] == '/') {
			delete(f.index.times, dir)
			f.index.times[to+rest] = t
		}
	}
}

// dirsToKeep are the times of directories that the tree does not have yet.
func (f *FS) dirsToKeep() map[string]int64 {
	f.index.mu.Lock()
	defer f.index.mu.Unlock()
	due := map[string]int64{}
	for dir, t := range f.index.times {
		if !t.kept {
			due[dir] = t.at
		}
	}
	return due
}

// dirsKept notes that the tree has times, or that there is nothing that could.
func (f *FS) dirsKept(due map[string]int64) {
	f.index.mu.Lock()
	defer f.index.mu.Unlock()
	for dir, at := range due {
		if t, ok := f.index.times[dir]; ok && t.at == at {
			t.kept = true
			f.index.times[dir] = t
		}
	}
}

// entries lists a directory: what the tree has in it, vDisks, and what leads to
// vDisks further below. No name is twice in it: of a file and a directory that
// vDisks of an earlier release imply, the file is there, as Lookup finds it.
func (f *FS) entries(ctx context.Context, dir string) ([]entry, error) {
	b, err := f.branch(ctx, dir)
	if err != nil {
		return nil, err
	}
	var list []entry
	isDir := map[string]bool{}
	for _, e := range f.tree.List(dir) {
		list = append(list, entry{e.Name, e.Kind == filetree.Directory})
	}
	list = append(list, b.list...)
	for _, e := range list {
		was, twice := isDir[e.name]
		isDir[e.name] = e.dir && (was || !twice)
	}
	if dir == "" {
		delete(isDir, snapshotsDir)
	}
	return slices.DeleteFunc(list, func(e entry) bool {
		dir, left := isDir[e.name]
		if !left || e.dir != dir {
			return true
		}
		delete(isDir, e.name)
		return false
	}), nil
}

// branch returns what the names of vDisks are in a directory.
func (f *FS) branch(ctx context.Context, dir string) (*branch, error) {
	x, err := f.look(ctx)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if b := x.disks[dir]; b != nil {
		return b, nil
	}
	return &branch{}, nil
}

// leads reports whether vDisks are below a directory.
func (f *FS) leads(ctx context.Context, dir string) (bool, error) {
	b, err := f.branch(ctx, dir)
	return err == nil && len(b.list) > 0, err
}

// links is how many links a directory has: its name, its ".", and ".." of each
// directory in it.
func (f *FS) links(ctx context.Context, dir string) (uint32, error) {
	b, err := f.branch(ctx, dir)
	if err != nil {
		return 0, err
	}
	n := 2 + f.tree.Directories(dir)
	if dir == "" {
		n++ // .snapshots
	}
	for _, e := range b.list {
		if !e.dir || dir == "" && e.name == snapshotsDir || b.holds[entry{e.name, false}] {
			continue
		}
		if _, there := f.tree.Get(path.Join(dir, e.name)); !there {
			n++
		}
	}
	return uint32(n), nil
}

// snapBranch returns what is in .snapshots/DIR, ENOENT if there is no such.
func (f *FS) snapBranch(ctx context.Context, dir string) (*branch, error) {
	x, err := f.look(ctx)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if b := x.snaps[dir]; b != nil {
		return b, nil
	}
	return nil, syscall.ENOENT
}
