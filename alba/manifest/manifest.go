package manifest

import (
	"encoding/hex"
	"errors"
	"fmt"

	"openvstorage/alba/ec"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/backend"
)

// Bounds of a manifest. The managers that keep manifests have the same bounds, so that every
// manifest that can be encoded can be kept.
const (
	// ShardAlign is what shard lengths are rounded up to, and what a block
	// checksum covers.
	ShardAlign = 4096
	// MaxChunks bounds the chunks of an object, MaxFragments their fragments.
	MaxChunks    = 1024
	MaxFragments = 4096
	// InlineLimit bounds the plain bytes of an inline object.
	InlineLimit = preset.InlineLimit
	// SealOverhead is what sealing adds to a block.
	SealOverhead = 16
	// EncodedMax bounds the encoded form in bytes.
	EncodedMax = 256 << 10
)

// ErrManifest is the error for a manifest whose values contradict each other.
var ErrManifest = errors.New("not a manifest")

// ObjectID is 16 random bytes, drawn for every attempt to upload an object. The keys and
// nonces of sealing rely on an id being used only once. Zero stands for no object.
type ObjectID [16]byte

// String returns 32 hexadecimal digits.
func (id ObjectID) String() string { return hex.EncodeToString(id[:]) }

// Manifest is the record of an object.
type Manifest struct {
	Namespace uint64
	Name      string // as package backend allows
	Object    ObjectID
	Size      uint64 // plain bytes
	Version   uint64 // of the object's name, for conditional puts
	Revision  uint32 // grows with each change of the fragments
	Time      int64  // nanoseconds since 1970
	Epoch     uint64 // gc epoch in which its fragments were put
	Policy    policy.Policy
	Scheme    preset.Scheme
	Inlined   bool // the stored bytes are in Inline, not in fragments
	Chunks    []Chunk
	Inline    []byte   // stored bytes of the only chunk
	CRCs      []uint32 // of each 4 KiB of Inline
}

// Chunk is a part of an object that is coded by itself.
type Chunk struct {
	Plain  uint32 // bytes of the object
	Stored uint32 // bytes after compression and sealing, with the table
	Shard  uint32 // length of each shard: ceil(Stored/k), rounded up to ShardAlign
	// Dense: no block is compressed, so that the place of each is known and there is no
	// table of block lengths.
	Dense     bool
	Fragments []Fragment // k+m of them; the first k are data
}

// Fragment is one shard on one OSD.
type Fragment struct {
	OSD     uint64 // policy.None: nowhere yet
	Version uint32
	Length  uint32 // bytes; the chunk's shard length
	CRC     uint32 // of its CRC table
}

// ShardLength returns the length of each of k shards that hold so many bytes.
func ShardLength(stored uint32, k int) uint32 {
	each := (uint64(stored) + uint64(k) - 1) / uint64(k)
	return uint32((each + ShardAlign - 1) &^ (ShardAlign - 1))
}

// Blocks returns the number of blocks of a chunk with so many plain bytes.
func Blocks(plain uint32, log2 uint8) int {
	return int((uint64(plain) + 1<<log2 - 1) >> log2)
}

// TableLength returns the stored length of the table of block lengths.
func TableLength(blocks int, sealed bool) uint32 {
	n := 4*blocks + 4
	if sealed {
		n += SealOverhead
	}
	return uint32(n)
}

// DenseLength returns the stored length of a dense chunk.
func DenseLength(plain uint32, s preset.Scheme) uint32 {
	if s.Cipher == preset.CipherNone {
		return plain
	}
	return plain + SealOverhead*uint32(Blocks(plain, s.BlockLog2))
}

// storedOK reports whether so many stored bytes can come from the plain ones.
func (c *Chunk) storedOK(s preset.Scheme) bool {
	dense := DenseLength(c.Plain, s)
	if c.Dense {
		return c.Stored == dense
	}
	// No block takes more room than it does raw, and zeros take none.
	table := TableLength(Blocks(c.Plain, s.BlockLog2), s.Cipher != preset.CipherNone)
	return c.Stored >= table && c.Stored < table+dense
}

// Validate returns ErrManifest, preset.ErrPreset or policy.ErrPolicy if the
// values contradict each other or are beyond bounds.
func (m *Manifest) Validate() error {
	bad := func(text string, args ...any) error {
		return fmt.Errorf("%w: object %.210q (%v): %s", ErrManifest, m.Name, m.Object, fmt.Sprintf(text, args...))
	}
	if backend.CheckName(m.Name) != nil {
		return bad("not a name for an object")
	}
	if m.Object == (ObjectID{}) {
		return bad("no object id")
	}
	if err := m.Scheme.Validate(); err != nil {
		return fmt.Errorf("object %s: %w", m.Name, err)
	}
	if err := m.Policy.Validate(); err != nil {
		return fmt.Errorf("object %s: %w", m.Name, err)
	}
	if err := ec.Check(m.Scheme.Code, int(m.Policy.K), int(m.Policy.M)); err != nil {
		return fmt.Errorf("object %s: %w", m.Name, err)
	}
	if len(m.Chunks) > MaxChunks {
		return bad("%d chunks; at most %d", len(m.Chunks), MaxChunks)
	}
	if n := len(m.Chunks) * m.Policy.Width(); !m.Inlined && n > MaxFragments {
		return bad("%d fragments; at most %d: take larger chunks", n, MaxFragments)
	}
	if m.Size == 0 != (len(m.Chunks) == 0) || !m.Inlined && m.Size == 0 {
		return bad("%d bytes in %d chunks", m.Size, len(m.Chunks))
	}
	if n := m.EncodedSize(); n > EncodedMax {
		return bad("its manifest would have %d bytes; at most %d: take larger chunks", n, EncodedMax)
	}
	var sum uint64
	for i := range m.Chunks {
		c := &m.Chunks[i]
		sum += uint64(c.Plain)
		last := i == len(m.Chunks)-1
		first := m.Chunks[0].Plain
		switch {
		case c.Plain == 0 || c.Plain > preset.ChunkMax || c.Plain > first || !last && (c.Plain != first || c.Plain&(1<<m.Scheme.BlockLog2-1) != 0):
			return bad("chunk %d has %d plain bytes, the first has %d", i, c.Plain, first)
		case !c.storedOK(m.Scheme):
			return bad("chunk %d has %d stored bytes for %d plain ones", i, c.Stored, c.Plain)
		}
		if err := m.validateFragments(c); err != nil {
			return bad("chunk %d: %v", i, err)
		}
	}
	if sum != m.Size {
		return bad("its chunks have %d bytes, not %d", sum, m.Size)
	}
	if err := m.validateInline(); err != nil {
		return bad("%v", err)
	}
	return nil
}

func (m *Manifest) validateFragments(c *Chunk) error {
	if m.Inlined {
		if len(c.Fragments) != 0 || c.Shard != 0 {
			return errors.New("inline, with fragments")
		}
		return nil
	}
	if want := ShardLength(c.Stored, int(m.Policy.K)); c.Shard != want {
		return fmt.Errorf("shards of %d bytes, not %d", c.Shard, want)
	}
	if len(c.Fragments) != m.Policy.Width() {
		return fmt.Errorf("%d fragments, not %d", len(c.Fragments), m.Policy.Width())
	}
	for i, f := range c.Fragments {
		if f.Length != c.Shard {
			return fmt.Errorf("fragment %d has %d bytes, not %d", i, f.Length, c.Shard)
		}
		for j := range i {
			if f.OSD != policy.None && c.Fragments[j].OSD == f.OSD {
				return fmt.Errorf("fragments %d and %d are both on OSD %d", j, i, f.OSD)
			}
		}
	}
	return nil
}

func (m *Manifest) validateInline() error {
	if !m.Inlined {
		if len(m.Inline) != 0 || len(m.CRCs) != 0 {
			return errors.New("erasure-coded, with inline bytes")
		}
		return nil
	}
	stored := 0
	if len(m.Chunks) > 0 {
		stored = int(m.Chunks[0].Stored)
	}
	switch {
	case m.Size > InlineLimit:
		return fmt.Errorf("%d bytes inline; at most %d", m.Size, InlineLimit)
	case len(m.Chunks) > 1:
		return fmt.Errorf("inline, with %d chunks", len(m.Chunks))
	case len(m.Inline) != stored:
		return fmt.Errorf("%d inline bytes for %d stored ones", len(m.Inline), stored)
	case len(m.CRCs) != (stored+ShardAlign-1)/ShardAlign:
		return fmt.Errorf("%d CRCs for %d inline bytes", len(m.CRCs), stored)
	}
	return nil
}

// ChunkSize returns the plain bytes of every chunk but the last.
func (m *Manifest) ChunkSize() uint64 {
	if len(m.Chunks) == 0 {
		return 0
	}
	return uint64(m.Chunks[0].Plain)
}

// StoredSize returns the bytes that the object takes on OSDs at full width, or
// in its manifest.
func (m *Manifest) StoredSize() uint64 {
	n := uint64(len(m.Inline))
	for i := range m.Chunks {
		n += uint64(m.Chunks[i].Shard) * uint64(len(m.Chunks[i].Fragments))
	}
	return n
}

// Present returns the least number of fragments that a chunk has on OSDs: the
// object's bucket. An inline object has full width.
func (m *Manifest) Present() int {
	least := m.Policy.Width()
	for i := range m.Chunks {
		if m.Inlined {
			break
		}
		n := 0
		for _, f := range m.Chunks[i].Fragments {
			if f.OSD != policy.None {
				n++
			}
		}
		least = min(least, n)
	}
	return least
}

// Key returns the key of a fragment on its OSD.
func (m *Manifest) Key(chunk, fragment int) Key {
	return Key{
		Namespace: m.Namespace, Object: m.Object, Chunk: uint32(chunk), Fragment: uint8(fragment),
		Version: m.Chunks[chunk].Fragments[fragment].Version,
	}
}
