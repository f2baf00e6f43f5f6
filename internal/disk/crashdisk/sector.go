package crashdisk

import (
	"bytes"
	"math/bits"
	"math/rand/v2"
)

// The units of tracking. A chunk is the unit of memory and of sharing between
// a disk and its images, a sector the unit that a power cut keeps or loses.
const (
	sectorSize      = 512
	chunkSize       = 16 << 10
	sectorsPerChunk = chunkSize / sectorSize // as many as a uint32 has bits
	maxVersions     = 16                     // remembered for one sector besides the current one
)

var zeroSector [sectorSize]byte

// chunk is 16 KiB of a file. data is nil where all is zeros and always was
// since the last sync. Data whose owner is not the disk's own is shared with
// an image and is copied before it is written.
type chunk struct {
	data    []byte
	owner   *owner
	history *history // nil if all is synced
}

// owner stands for one disk between two snapshots. It has a size, so that two
// owners never have the same address.
type owner struct{ _ byte }

// history is what is not synced in a chunk.
type history struct {
	dirty uint32                    // sectors with a history
	lost  uint32                    // those of them that a sync passes by: SyncFailed
	cut   [sectorsPerChunk]uint32   // the truncation that made the current content, or 0
	old   [sectorsPerChunk]*version // what was there before, newest first, down to the synced one
}

// version is an earlier content of a sector. Versions are never changed, so
// images share them.
type version struct {
	data  []byte // nil: zeros
	cut   uint32
	depth int
	older *version
}

// synced zeros are so common that they are one value.
var zeroVersion = &version{depth: 1}

// change gives the bytes [from, to) of the chunk, ready to be overwritten: the
// data is the disk's own and the old content is remembered. cut is the number
// of the truncation this is part of, or 0.
func (c *chunk) change(own *owner, from, to int, cut uint32) []byte {
	fresh := c.data == nil
	switch {
	case fresh:
		c.data = make([]byte, chunkSize)
	case c.owner != own:
		c.data = bytes.Clone(c.data)
	}
	c.owner = own
	if c.history == nil {
		c.history = new(history)
	}
	c.history.remember(c.data, from/sectorSize, (to+sectorSize-1)/sectorSize, cut, fresh)
	return c.data[from:to]
}

// remember puts the current content of sectors [first, end) behind the one
// that is about to be written.
func (h *history) remember(data []byte, first, end int, cut uint32, fresh bool) {
	var copied []byte // one copy for all sectors of a write, made when needed
	var nodes []version
	for s := first; s < end; s++ {
		bit := uint32(1) << s
		now := data[s*sectorSize:][:sectorSize]
		known := h.dirty&bit != 0
		h.dirty |= bit
		h.lost &^= bit
		if !known && (fresh || bytes.Equal(now, zeroSector[:])) {
			h.old[s] = zeroVersion
		} else {
			if copied == nil {
				copied = bytes.Clone(data[s*sectorSize : end*sectorSize])
				nodes = make([]version, end-s)
			}
			n := &nodes[len(nodes)-(end-s)]
			at := len(copied) - (end-s)*sectorSize
			n.data = copied[at : at+sectorSize : at+sectorSize]
			n.cut = h.cut[s]
			n.depth = 1
			if known {
				n.older = h.old[s]
				n.depth = n.older.depth + 1
			}
			h.old[s] = n
			if n.depth > maxVersions {
				h.old[s] = thin(n)
			}
		}
		h.cut[s] = cut
	}
}

// thin returns v's list, of at least three, without the second oldest: the
// synced version stays, and the newest ones.
func thin(v *version) *version {
	c := *v
	c.depth--
	second := v.older
	if second.older.older != nil {
		c.older = thin(second)
		return &c
	}
	c.older = second.older
	if c.cut == 0 { // what came after a truncation still does
		c.cut = second.cut
	}
	return &c
}

// synced forgets the history of all sectors that a successful sync covers.
func (c *chunk) synced() {
	h := c.history
	if h.lost == 0 {
		c.history = nil
		return
	}
	for left := h.dirty &^ h.lost; left != 0; left &= left - 1 {
		s := bits.TrailingZeros32(left)
		h.old[s], h.cut[s] = nil, 0
	}
	h.dirty = h.lost
}

// clone copies the chunk with its history, for an image after kill -9.
func (c chunk) clone() chunk {
	if c.history != nil {
		h := *c.history
		c.history = &h
	}
	return c
}

// crash returns the chunk after a power cut: for every sector with a history,
// the version that pick chooses. epoch is the newest truncation that was kept.
func (c chunk) crash(own *owner, epoch uint32, p *picker) chunk {
	h := c.history
	c.history = nil
	if h == nil {
		return c
	}
	for left := h.dirty; left != 0; left &= left - 1 {
		s := bits.TrailingZeros32(left)
		list := h.candidates(s, epoch, p.list[:0])
		p.list = list
		i := p.pick(len(list))
		if list[i] == nil && !p.torn { // the current content, whole
			continue
		}
		now := c.data[s*sectorSize:][:sectorSize]
		content := func(v *version) []byte {
			switch {
			case v == nil:
				return now
			case v.data == nil:
				return zeroSector[:]
			}
			return v.data
		}
		var sector [sectorSize]byte
		copy(sector[:], content(list[i]))
		if p.torn && i > 0 && p.rng.IntN(2) == 0 {
			k := p.rng.IntN(sectorSize)
			copy(sector[k:], content(list[i-1])[k:])
		}
		if bytes.Equal(sector[:], now) {
			continue
		}
		if c.owner != own {
			c.data, c.owner = bytes.Clone(c.data), own
		}
		copy(c.data[s*sectorSize:], sector[:])
	}
	return c
}

// candidates appends the versions of sector s that may be found together with
// truncation number epoch, oldest first; nil stands for the current content.
func (h *history) candidates(s int, epoch uint32, list []*version) []*version {
	for v := h.old[s]; v != nil; v = v.older {
		list = append(list, v)
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	list = append(list, nil)
	first, end := 0, len(list)
	for i, v := range list {
		cut := h.cut[s]
		if v != nil {
			cut = v.cut
		}
		if cut > epoch {
			end = i
			break
		}
		if cut != 0 {
			first = i
		}
	}
	return list[first:end]
}

// picker makes a power cut's choices for one file.
type picker struct {
	rng        *rand.Rand
	kept, lost float64
	torn       bool
	list       []*version // scratch
}

// pick chooses one of n versions, oldest first.
func (p *picker) pick(n int) int {
	if n == 1 {
		return 0
	}
	switch x := p.rng.Float64(); {
	case x < p.kept:
		return n - 1
	case x < p.kept+p.lost:
		return 0
	}
	return p.rng.IntN(n)
}
