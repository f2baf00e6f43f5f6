package nsm

import (
	"fmt"

	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Bounds.
const (
	MaxName      = 255                   // bytes of an object's name
	MaxSize      = 1 << 42               // bytes of an object
	MaxManifest  = manifest.EncodedMax   // bytes of a manifest
	MaxChunks    = manifest.MaxChunks    // chunks of an object
	MaxFragments = manifest.MaxFragments // fragments of an object, over all chunks
	MaxShard     = 1 << 30               // bytes of a fragment
	MaxNode      = 255                   // bytes of a node's name
	MaxPage      = 200                   // objects that a list returns at once
	MaxKeys      = 1000                  // keys that one call lists or removes
	MaxNames     = 256                   // names that one call deletes
	MaxMessages  = 256                   // messages that one call applies
	MaxChanges   = 4096                  // fragments that one call changes
	MaxEpochs    = 16                    // gc epochs that are open at once
)

// Policy says how an object is coded: K data and M parity fragments for each
// chunk, accepted with C of them, at most X on one node. All zero: the object
// is inline in its manifest and has no fragments.
type Policy struct{ K, M, C, X uint8 }

// Width is the number of fragments of a chunk.
func (p Policy) Width() int { return int(p.K) + int(p.M) }

// Fragment says where a fragment is.
type Fragment struct {
	OSD uint64 // 0: nowhere
	// Version is part of the fragment's key on the OSD: 0 for a fragment of the
	// upload, else the revision with which the object came to name it. If OSD is 0,
	// Version is not 0 if a fragment was there and was dropped.
	Version uint32
}

// Chunk is one stripe: fragments of equal length.
type Chunk struct {
	Length    uint32 // bytes of each fragment
	Fragments []Fragment
}

// Object is what the manager knows of an object.
type Object struct {
	Name     string
	ID       [16]byte // drawn for every attempt to upload, used once
	Version  uint64   // given by the manager when it is put; never repeats
	Revision uint32   // how often its fragments have been changed since
	Epoch    uint64   // gc epoch under which it was uploaded
	Size     uint64   // bytes of the object
	Hash     [32]byte // of its bytes: equal hashes are equal objects
	Policy   Policy
	Time     int64 // when it was put, by the proposer's clock
	Chunks   []Chunk
	// ManifestSize is the length of the manifest. Manifest itself is nil if only
	// the object was asked for.
	ManifestSize uint32
	Manifest     []byte
}

// Stored is the number of bytes that the object takes: those of its fragments or, if it is
// inline, of its manifest.
func (o *Object) Stored() uint64 {
	if len(o.Chunks) == 0 {
		return uint64(o.ManifestSize)
	}
	var sum uint64
	for i := range o.Chunks {
		sum += uint64(o.Chunks[i].Length) * uint64(o.Chunks[i].Present())
	}
	return sum
}

// Present is the number of fragments of the chunk that are on an OSD.
func (c *Chunk) Present() int {
	n := 0
	for _, f := range c.Fragments {
		if f.OSD != 0 {
			n++
		}
	}
	return n
}

// Bucket groups objects by how safe they are. Present is the number of fragments of the
// object's weakest chunk: it may lose Present-K more.
type Bucket struct{ K, M, Present uint8 }

// Full reports whether no fragment is missing.
func (b Bucket) Full() bool { return int(b.Present) >= int(b.K)+int(b.M) }

// Bucket returns the object's bucket.
func (o *Object) Bucket() Bucket {
	b := Bucket{K: o.Policy.K, M: o.Policy.M}
	for i := range o.Chunks {
		if n := uint8(o.Chunks[i].Present()); i == 0 || n < b.Present {
			b.Present = n
		}
	}
	return b
}

// On reports whether the object has a fragment on an OSD.
func (o *Object) On(osd uint64) bool {
	for _, c := range o.Chunks {
		for _, f := range c.Fragments {
			if f.OSD == osd {
				return true
			}
		}
	}
	return false
}

// count returns the number of fragments that are on an OSD.
func (o *Object) count() int {
	n := 0
	for i := range o.Chunks {
		n += o.Chunks[i].Present()
	}
	return n
}

func validName(name string) error {
	if name == "" || len(name) > MaxName {
		return userfn.Errorf(userfn.CodeInvalid, "object name of %d bytes: it takes 1 to %d", len(name), MaxName)
	}
	return nil
}

func (o *Object) invalid(msg string, args ...any) error {
	return userfn.Errorf(userfn.CodeInvalid, "object %q: %s", o.Name, fmt.Sprintf(msg, args...))
}

// validate checks what can be checked without the state. least is the number
// of fragments that each chunk must have.
func (o *Object) validate(least uint8) error {
	if err := validName(o.Name); err != nil {
		return err
	}
	p := o.Policy
	switch {
	case o.ID == [16]byte{}:
		return o.invalid("it has no id")
	case len(o.Manifest) == 0:
		return o.invalid("it has no manifest")
	case uint64(o.ManifestSize) != uint64(len(o.Manifest)):
		return o.invalid("its manifest has %d bytes, not %d", len(o.Manifest), o.ManifestSize)
	case o.Size > MaxSize:
		return o.invalid("its size of %d bytes exceeds %d", o.Size, uint64(MaxSize))
	case len(o.Chunks) == 0:
		if p != (Policy{}) {
			return o.invalid("policy %d,%d,%d,%d without chunks", p.K, p.M, p.C, p.X)
		}
		return nil
	case p.K == 0 || p.Width() > 255 || p.C < p.K || int(p.C) > p.Width() || p.X == 0:
		return o.invalid("policy %d,%d,%d,%d: it takes 1 <= k <= c <= k+m <= 255 and x > 0", p.K, p.M, p.C, p.X)
	case len(o.Chunks)*p.Width() > MaxFragments:
		return o.invalid("%d fragments exceed %d", len(o.Chunks)*p.Width(), MaxFragments)
	}
	for i := range o.Chunks {
		if err := o.validateChunk(i, least); err != nil {
			return err
		}
	}
	return nil
}

func (o *Object) validateChunk(i int, least uint8) error {
	c := &o.Chunks[i]
	if c.Length == 0 || c.Length > MaxShard {
		return o.invalid("chunk %d has fragments of %d bytes", i, c.Length)
	}
	if len(c.Fragments) != o.Policy.Width() {
		return o.invalid("chunk %d has %d fragments, its policy says %d", i, len(c.Fragments), o.Policy.Width())
	}
	if n := c.Present(); n < int(least) {
		return userfn.Errorf(userfn.CodeSpread, "object %q: chunk %d has %d fragments, it needs %d", o.Name, i, n, least)
	}
	for j, f := range c.Fragments {
		for _, other := range c.Fragments[:j] {
			if f.OSD != 0 && f.OSD == other.OSD {
				return userfn.Errorf(userfn.CodeSpread, "object %q: chunk %d has two fragments on OSD %d", o.Name, i, f.OSD)
			}
		}
	}
	return nil
}

// clone returns a copy whose chunks can be changed.
func (o *Object) clone() *Object {
	c := *o
	c.Chunks = make([]Chunk, len(o.Chunks))
	for i := range o.Chunks {
		c.Chunks[i] = Chunk{Length: o.Chunks[i].Length, Fragments: append([]Fragment(nil), o.Chunks[i].Fragments...)}
	}
	return &c
}

// Fields implements record.Record: an object without its name and manifest.
//
//	ID id, U64 version, U32 revision, U64 epoch, U64 size, Hash hash,
//	U8 k, m, c, x, Time time, U32 manifest size,
//	List of chunks { U32 length, List of fragments { U64 OSD, U32 version } }
func (o *Object) Fields(c *record.Codec) {
	c.ID(&o.ID)
	c.U64(&o.Version)
	c.U32(&o.Revision)
	c.U64(&o.Epoch)
	c.U64(&o.Size)
	c.Hash(&o.Hash)
	c.U8(&o.Policy.K)
	c.U8(&o.Policy.M)
	c.U8(&o.Policy.C)
	c.U8(&o.Policy.X)
	c.Time(&o.Time)
	c.U32(&o.ManifestSize)
	record.Records(c, &o.Chunks, MaxChunks)
}

// Fields implements record.Record.
func (k *Chunk) Fields(c *record.Codec) {
	c.U32(&k.Length)
	record.Records(c, &k.Fragments, 255)
}

// Fields implements record.Record.
func (f *Fragment) Fields(c *record.Codec) {
	c.U64(&f.OSD)
	c.U32(&f.Version)
}
