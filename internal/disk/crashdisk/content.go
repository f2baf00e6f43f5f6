package crashdisk

import (
	"bytes"
	"io"
	"slices"
)

// content is what a file holds.
type content struct {
	chunks []chunk
	size   int64
	// sizes are the size of the last sync and those since, the current one
	// last, each with the number of the last truncation before it.
	sizes []sizeVersion
	epoch uint32 // number of the last shrinking truncation
	dirty []int  // chunks that have a history, each once
}

type sizeVersion struct {
	size  int64
	epoch uint32
}

// maxSizes bounds content.sizes; beyond it every second one is forgotten.
const maxSizes = 64

func newContent() *content { return &content{sizes: make([]sizeVersion, 1)} }

func (c *content) readAt(p []byte, off int64) (int, error) {
	if off >= c.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.size-off))
	for done := 0; done < n; {
		i, at := locate(off + int64(done))
		part := p[done:min(n, done+chunkSize-at)]
		if i < len(c.chunks) && c.chunks[i].data != nil {
			copy(part, c.chunks[i].data[at:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func locate(off int64) (chunk, within int) {
	return int(off / chunkSize), int(off % chunkSize)
}

func (c *content) writeAt(own *owner, p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	end := off + int64(len(p))
	c.cover(end)
	for len(p) > 0 {
		i, at := locate(off)
		part := p[:min(len(p), chunkSize-at)]
		// Zeros over zeros change nothing that a crash could show.
		if c.chunks[i].data != nil || !isZero(part) {
			copy(c.change(own, i, at, at+len(part), 0), part)
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	if end > c.size {
		c.resized(end)
	}
}

// writeZeros is writeAt with n zeros, at no cost where there are zeros.
func (c *content) writeZeros(own *owner, off, n int64) {
	end := off + n
	c.cover(end)
	c.zero(own, off, end, 0)
	if end > c.size {
		c.resized(end)
	}
}

// zero sets [off, end) to zeros as far as there are chunks.
func (c *content) zero(own *owner, off, end int64, cut uint32) {
	end = min(end, int64(len(c.chunks))*chunkSize)
	for off < end {
		i, at := locate(off)
		k := int(min(end-off, int64(chunkSize-at)))
		if c.chunks[i].data != nil {
			clear(c.change(own, i, at, at+k, cut))
		}
		off += int64(k)
	}
}

func (c *content) truncate(own *owner, size int64) {
	if size < c.size {
		c.epoch++
		c.zero(own, size, c.size, c.epoch)
	}
	if size != c.size {
		c.resized(size)
	}
}

// cover makes the list of chunks reach to end.
func (c *content) cover(end int64) {
	if n := int((end + chunkSize - 1) / chunkSize); n > len(c.chunks) {
		c.chunks = slices.Grow(c.chunks, n-len(c.chunks))[:n]
	}
}

func (c *content) change(own *owner, i, from, to int, cut uint32) []byte {
	if c.chunks[i].history == nil {
		c.dirty = append(c.dirty, i)
	}
	return c.chunks[i].change(own, from, to, cut)
}

func (c *content) resized(size int64) {
	c.size = size
	if len(c.sizes) == maxSizes {
		for i := 1; i < maxSizes/2; i++ { // the synced one stays
			c.sizes[i] = c.sizes[2*i]
		}
		c.sizes = c.sizes[:maxSizes/2]
	}
	c.sizes = append(c.sizes, sizeVersion{size, c.epoch})
}

func (c *content) sync() {
	left := c.dirty[:0]
	for _, i := range c.dirty {
		c.chunks[i].synced()
		if c.chunks[i].history != nil {
			left = append(left, i)
		}
	}
	c.dirty = left
	c.sizes = append(c.sizes[:0], sizeVersion{c.size, c.epoch})
	if n := int((c.size + chunkSize - 1) / chunkSize); n < len(c.chunks) && len(left) == 0 {
		clear(c.chunks[n:])
		c.chunks = c.chunks[:n]
	}
}

// syncFailed takes everything unsynced off the list of what a sync writes.
func (c *content) syncFailed() {
	for _, i := range c.dirty {
		h := c.chunks[i].history
		h.lost = h.dirty
	}
}

func (c *content) clone() *content {
	n := *c
	n.chunks = make([]chunk, len(c.chunks))
	for i := range c.chunks {
		n.chunks[i] = c.chunks[i].clone()
	}
	n.sizes = slices.Clone(c.sizes)
	n.dirty = slices.Clone(c.dirty)
	return &n
}

// crash returns what the file may hold after a power cut.
func (c *content) crash(own *owner, p *picker) *content {
	size := c.sizes[p.pick(len(c.sizes))]
	n := newContent()
	n.size, n.sizes[0] = size.size, sizeVersion{size: size.size}
	n.chunks = slices.Clone(c.chunks)
	for _, i := range c.dirty {
		n.chunks[i] = n.chunks[i].crash(own, size.epoch, p)
	}
	n.trim(own)
	return n
}

// trim drops what lies behind the size: bytes there read as zeros if the file
// grows again.
func (c *content) trim(own *owner) {
	n, at := locate(c.size)
	if at > 0 && n < len(c.chunks) {
		if k := &c.chunks[n]; k.data != nil && !isZero(k.data[at:]) {
			if k.owner != own {
				k.data, k.owner = bytes.Clone(k.data), own
			}
			clear(k.data[at:])
		}
		n++
	}
	if n < len(c.chunks) {
		clear(c.chunks[n:])
		c.chunks = c.chunks[:n]
	}
}

func isZero(p []byte) bool {
	for len(p) >= sectorSize {
		if !bytes.Equal(p[:sectorSize], zeroSector[:]) {
			return false
		}
		p = p[sectorSize:]
	}
	return bytes.Equal(p, zeroSector[:len(p)])
}
