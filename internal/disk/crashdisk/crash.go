package crashdisk

import (
	"maps"
	"math/rand/v2"
)

// Options says what a power cut does. For every unsynced sector, size and
// directory the newest version is kept with probability Kept and the synced
// one with probability Lost; otherwise any of the versions is as likely as
// another.
type Options struct {
	Kept, Lost float64 // sectors and sizes
	// WholeFile is the probability that a file keeps all of its sectors or loses all
	// of them, each in half of the cases. Without it a long run of kept sectors would
	// never be seen.
	WholeFile float64
	// NamesKept and NamesLost are the same as Kept and Lost for a directory's
	// pending changes; otherwise some first changes are kept.
	NamesKept, NamesLost float64
	// Torn lets half of the kept sectors begin with the newer content and end with
	// the one before. Media write sectors whole, so this only tests that a checksum
	// covers what it should.
	Torn bool
}

// The kinds of power cut that most tests want.
var (
	KeepAll = Options{Kept: 1, NamesKept: 1}
	LoseAll = Options{Lost: 1, NamesLost: 1}
	Mixed   = Options{Kept: 0.4, Lost: 0.4, WholeFile: 0.4, NamesKept: 0.4, NamesLost: 0.2}
	Torn    = Options{Kept: 0.4, Lost: 0.3, WholeFile: 0.2, NamesKept: 0.4, NamesLost: 0.2, Torn: true}
)

// Crash returns the disk as it may be after a power cut at this instant; all that is
// on it is synced. Equal disks with equal random numbers give equal results.
func (d *FS) Crash(rng *rand.Rand, opt Options) *FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	image := d.image()

	names := picker{rng: rng, kept: opt.NamesKept, lost: opt.NamesLost}
	kept := cutNames(directories(d.root), names.pick)
	c := copier{
		nodes: map[*node]*node{},
		dirs:  map[*directory]*directory{},
		names: func(d *directory) (map[string]*node, bool) {
			left := maps.Clone(d.durable)
			for _, c := range d.pending[:kept[d]] {
				set(left, c.set)
			}
			return left, false
		},
		contents: func(f *content) *content {
			return f.crash(image.own, filePicker(rng, opt))
		},
	}
	image.root = c.node(d.root)
	return image
}

func filePicker(rng *rand.Rand, opt Options) *picker {
	p := &picker{rng: rng, kept: opt.Kept, lost: opt.Lost, torn: opt.Torn}
	if rng.Float64() < opt.WholeFile {
		p.kept, p.lost, p.torn = 1, 0, false
		if rng.IntN(2) == 0 {
			p.kept, p.lost = 0, 1
		}
	}
	return p
}

// Kill returns the disk as another process finds it after kill -9 at this instant. All
// that was written is there, but what was not synced is still not synced. Locks are free.
func (d *FS) Kill() *FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	image := d.image()
	c := copier{
		nodes:    map[*node]*node{},
		dirs:     map[*directory]*directory{},
		names:    func(d *directory) (map[string]*node, bool) { return d.names, true },
		contents: (*content).clone,
	}
	image.root = c.node(d.root)
	return image
}

// image returns an empty disk that may share data with d: from here on both
// copy before they write. TryReadAt blocks on it as often as on d. d.mu is held.
func (d *FS) image() *FS {
	d.own = new(owner)
	image := &FS{own: new(owner), last: d.last, locks: map[*node]bool{}, capacity: d.capacity}
	d.blockMu.Lock()
	defer d.blockMu.Unlock()
	image.SetWouldBlock(d.block, d.seed)
	return image
}
