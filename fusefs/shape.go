package fusefs

import (
	"hash/maphash"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// shape is the names of all vDisks and snapshots at one moment, as directories.
type shape struct {
	disks map[string]*branch // of DIR
	snaps map[string]*branch // of .snapshots/DIR, by DIR
	names map[uuid.UUID]string
}

// branch is what the names of vDisks, or of snapshots, are in one directory.
type branch struct {
	list   []entry // in order of names, no name twice
	holds  map[entry]bool
	digest uint64 // of the files, in any order
}

// entry is a name in a directory.
type entry struct {
	name string
	dir  bool
}

var digestSeed = maphash.MakeSeed()

// digest is what a file adds to the digest of its directory. The ids tell the file
// from another one of that name.
func digest(name string, id ...string) uint64 {
	return maphash.String(digestSeed, name+"/"+strings.Join(id, "/"))
}

// shapeOf makes directories of names.
func shapeOf(infos []Info) shape {
	s := shape{disks: map[string]*branch{"": {}}, snaps: map[string]*branch{"": {}}, names: make(map[uuid.UUID]string, len(infos))}
	for _, i := range infos {
		s.names[i.ID] = i.Name
		dir, base := splitPath(i.Name)
		branchOf(s.disks, dir).add(entry{base + suffix, false}, i.ID.String())
		for sub := i.Name; ; {
			up, name := splitPath(sub)
			branchOf(s.snaps, up).add(entry{name, true})
			if sub != i.Name {
				branchOf(s.disks, sub)
				branchOf(s.disks, up).add(entry{name, true})
			}
			if up == "" {
				break
			}
			sub = up
		}
		of := branchOf(s.snaps, i.Name)
		for _, snap := range i.Snapshots {
			of.add(entry{snap.Name + suffix, false}, i.ID.String(), strconv.FormatInt(snap.Created, 10))
		}
	}
	return s
}

func branchOf(all map[string]*branch, dir string) *branch {
	b := all[dir]
	if b == nil {
		b = &branch{}
		all[dir] = b
	}
	return b
}

// add adds a name, of the file that id tells from others.
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

// changedDirs are the directories that differ between two moments, and those in which
// a directory has come or gone. lasts reports whether a directory is there whatever is
// below it: such a directory neither comes nor goes. A path may be listed twice.
func changedDirs(before, after map[string]*branch, lasts func(dir string) bool) (changed []string) {
	differs := func(dir string, was, is *branch) {
		var old, now uint64
		if was != nil {
			old = was.digest
		}
		if is != nil {
			now = is.digest
		}
		if old != now {
			changed = append(changed, dir)
		}
		if (was == nil || is == nil) && dir != "" && !lasts(dir) {
			up, _ := splitPath(dir)
			changed = append(changed, up)
		}
	}
	for dir, is := range after {
		differs(dir, before[dir], is)
	}
	for dir, was := range before {
		if after[dir] == nil {
			differs(dir, was, nil)
		}
	}
	return changed
}
