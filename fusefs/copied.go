package fusefs

import "sync/atomic"

// copied says whether the first range of a copy has made the file a clone. Then the next
// ranges of that copy, which follow each other, are in the file already. Every other
// range must be copied. So must every range after a write to the file, or after the end
// of the copy: source and clone may have changed since, through this door or another.
type copied struct {
	// Guarded by the lock of the open device, held for writing.
	from content
	next int64 // where the copy's next range begins; 0: there is no such copy

	pristine atomic.Bool // nothing was written through this file since it was cloned
}

// touch notes that something is written.
func (c *copied) touch() {
	if c.pristine.Load() {
		c.pristine.Store(false)
	}
}

// begin notes that a copy from a source of size bytes has made the clone, as its first
// range of so many bytes.
func (c *copied) begin(from content, length, size int64) {
	c.from, c.next = content{}, 0
	if length < size {
		c.from, c.next = from, length
	}
	c.pristine.Store(true)
}

// goesOn reports whether a range is the next one of the copy that made the clone.
func (c *copied) goesOn(from content, off, length, size int64) bool {
	goesOn := off > 0 && c.from == from && c.next == off && c.pristine.Load()
	c.next += length
	if !goesOn || c.next >= size {
		c.from, c.next = content{}, 0
	}
	return goesOn
}
