package records

import (
	"encoding/binary"
	"fmt"

	"openvstorage/alba/ec"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/format"
)

// Format is the version of the encoding.
const Format = 1

// Max bounds the encoded record of a chunk, in bytes. InlineMax bounds that of an inline
// object.
const (
	Max       = codedHead + 4*ec.MaxWidth + 255 + 255 + crcSize
	InlineMax = head + 255 + manifest.EncodedMax + crcSize
)

const (
	head      = 44
	codedHead = 124
	crcSize   = 4

	flagExact  = 1
	flagInline = 2
	flagDense  = 4
)

// Record is a recovery record.
type Record struct {
	Space   string // the namespace's name
	Version uint64 // of the object
	Exact   bool   // Version is the object's; else the object has a newer one, or this
	Hash    [32]byte
	// Manifest is what the record says of the object: all of it if it is inline. Else it has
	// one chunk, which is chunk Chunk of Chunks; its fragments have no disks and no versions.
	Manifest manifest.Manifest
	Chunk    uint32
	Chunks   uint16
}

// Of returns the record of a chunk, or of an inline object, for which chunk is 0.
func Of(space string, m *manifest.Manifest, chunk int, hash [32]byte, version uint64, exact bool) *Record {
	r := &Record{Space: space, Version: version, Exact: exact, Hash: hash, Manifest: *m}
	if m.Inlined {
		return r
	}
	r.Chunk, r.Chunks = uint32(chunk), uint16(len(m.Chunks))
	c := m.Chunks[chunk]
	c.Fragments = append([]manifest.Fragment(nil), c.Fragments...)
	for i := range c.Fragments {
		c.Fragments[i].OSD, c.Fragments[i].Version = policy.None, 0
	}
	r.Manifest.Chunks = []manifest.Chunk{c}
	r.Manifest.Version, r.Manifest.Revision = 0, 0
	return r
}

// Append appends the encoded record to dst.
func (r *Record) Append(dst []byte) ([]byte, error) {
	at, m := len(dst), &r.Manifest
	if len(r.Space) == 0 || len(r.Space) > 255 || len(m.Name) == 0 || len(m.Name) > 255 {
		return dst, fmt.Errorf("recovery record: names of %d and %d bytes; 1 to 255 are allowed", len(r.Space), len(m.Name))
	}
	flags, name := byte(0), len(m.Name)
	if r.Exact {
		flags |= flagExact
	}
	if m.Inlined {
		flags, name = flags|flagInline, 0
	} else if m.Chunks[0].Dense {
		flags |= flagDense
	}
	le := binary.LittleEndian
	dst = append(dst, Format, flags, byte(len(r.Space)), byte(name))
	dst = le.AppendUint64(dst, r.Version)
	dst = append(dst, r.Hash[:]...)
	if m.Inlined {
		var err error
		if dst, err = m.Append(append(dst, r.Space...)); err != nil {
			return dst[:at], err
		}
		return le.AppendUint32(dst, format.CRC(dst[at:])), nil
	}
	s, c := m.Scheme, &m.Chunks[0]
	dst = append(dst, m.Policy.K, m.Policy.M, m.Policy.C, m.Policy.X,
		byte(s.Code), byte(s.Compression), byte(s.Cipher), byte(s.Checksum), s.BlockLog2, 0)
	dst = le.AppendUint16(dst, r.Chunks)
	dst = le.AppendUint32(dst, r.Chunk)
	dst = le.AppendUint64(dst, s.Key)
	dst = le.AppendUint64(dst, m.Namespace)
	dst = append(dst, m.Object[:]...)
	dst = le.AppendUint64(dst, m.Size)
	dst = le.AppendUint64(dst, uint64(m.Time))
	dst = le.AppendUint64(dst, m.Epoch)
	dst = le.AppendUint32(dst, c.Plain)
	dst = le.AppendUint32(dst, c.Stored)
	for _, f := range c.Fragments {
		dst = le.AppendUint32(dst, f.CRC)
	}
	dst = append(append(dst, r.Space...), m.Name...)
	return le.AppendUint32(dst, format.CRC(dst[at:])), nil
}

func corrupt(text string, args ...any) error {
	return fmt.Errorf("%w: recovery record: %s", format.ErrCorrupt, fmt.Sprintf(text, args...))
}

// Decode reads an encoded record, which is all of b, and keeps nothing of b. What Append would
// not have written is format.ErrCorrupt, what a newer release wrote format.ErrNewer.
func Decode(b []byte) (*Record, error) {
	if len(b) > 0 && b[0] > Format {
		return nil, fmt.Errorf("%w: recovery record of format %d, this release reads up to %d", format.ErrNewer, b[0], Format)
	}
	if len(b) < head+crcSize || len(b) > InlineMax || b[0] != Format {
		return nil, corrupt("%d bytes are none", len(b))
	}
	le := binary.LittleEndian
	end := len(b) - crcSize
	if got, want := format.CRC(b[:end]), le.Uint32(b[end:]); got != want {
		return nil, corrupt("CRC is %08x, not %08x", got, want)
	}
	flags, space, name := b[1], int(b[2]), int(b[3])
	if flags&^(flagExact|flagInline|flagDense) != 0 {
		return nil, fmt.Errorf("%w: recovery record with flags %#x", format.ErrNewer, flags)
	}
	r := &Record{Version: le.Uint64(b[4:]), Exact: flags&flagExact != 0, Hash: [32]byte(b[12:head])}
	if space == 0 {
		return nil, corrupt("its namespace has no name")
	}
	if flags&flagInline == 0 {
		return r, r.decodeChunk(b[:end], flags, space, name)
	}
	if name != 0 || flags&flagDense != 0 || head+space > end {
		return nil, corrupt("inline, with names of %d and %d bytes", space, name)
	}
	r.Space = string(b[head : head+space])
	m, err := manifest.Decode(b[head+space : end])
	if err != nil {
		return nil, fmt.Errorf("recovery record: %w", err)
	}
	if !m.Inlined {
		return nil, corrupt("the manifest in it is not inline")
	}
	r.Manifest = *m
	return r, nil
}

func (r *Record) decodeChunk(b []byte, flags byte, space, name int) error {
	if len(b) < codedHead || name == 0 {
		return corrupt("%d bytes for a chunk, a name of %d", len(b), name)
	}
	le := binary.LittleEndian
	m := &r.Manifest
	m.Policy = policy.Policy{K: b[44], M: b[45], C: b[46], X: b[47]}
	m.Scheme = preset.Scheme{
		Code: ec.ID(b[48]), Compression: preset.Compression(b[49]), Cipher: preset.Cipher(b[50]), Checksum: preset.Checksum(b[51]),
		BlockLog2: b[52], Key: le.Uint64(b[60:]),
	}
	if b[53] != 0 {
		return fmt.Errorf("%w: recovery record with %#x in a byte that is zero today", format.ErrNewer, b[53])
	}
	if err := m.Scheme.Validate(); err != nil {
		return fmt.Errorf("%w: recovery record: %v", format.ErrNewer, err)
	}
	width := m.Policy.Width()
	if err := m.Policy.Validate(); err != nil || width > ec.MaxWidth || len(b) != codedHead+4*width+space+name {
		return corrupt("%d bytes for %d fragments and names of %d and %d bytes (%v)", len(b), width, space, name, err)
	}
	r.Chunks, r.Chunk = le.Uint16(b[54:]), le.Uint32(b[56:])
	m.Namespace, m.Object = le.Uint64(b[68:]), manifest.ObjectID(b[76:92])
	m.Size, m.Time, m.Epoch = le.Uint64(b[92:]), int64(le.Uint64(b[100:])), le.Uint64(b[108:])
	c := manifest.Chunk{Plain: le.Uint32(b[116:]), Stored: le.Uint32(b[120:]), Dense: flags&flagDense != 0}
	c.Shard = manifest.ShardLength(c.Stored, int(m.Policy.K))
	c.Fragments = make([]manifest.Fragment, width)
	for i := range c.Fragments {
		c.Fragments[i] = manifest.Fragment{OSD: policy.None, Length: c.Shard, CRC: le.Uint32(b[codedHead+4*i:])}
	}
	m.Chunks = []manifest.Chunk{c}
	at := codedHead + 4*width
	r.Space, m.Name = string(b[at:at+space]), string(b[at+space:])
	if int(r.Chunks) > manifest.MaxChunks || r.Chunk >= uint32(r.Chunks) || m.Object == (manifest.ObjectID{}) {
		return corrupt("chunk %d of %d of object %v", r.Chunk, r.Chunks, m.Object)
	}
	return nil
}

// Value returns what an OSD is given of an encoded record. epoch is that of the fragment beside
// it or, for an inline object, its version.
func Value(key manifest.Key, encoded []byte, epoch uint64) osd.Value {
	seed := Seed(key)
	return osd.Value{Data: encoded, CRCs: osd.AppendCRCs(nil, seed, 0, encoded), Seed: seed, Epoch: epoch}
}

// seedFragment stands for the fragment in the seed of a record. No fragment has it, and
// no inline bytes.
const seedFragment = 0xfffffffe

// Seed begins every block checksum of a record under a key.
func Seed(key manifest.Key) uint64 {
	return manifest.Seed(key.Object, key.Chunk, seedFragment-uint32(key.Fragment))
}

// Beside returns the update that writes the record of a fragment, for the Apply that
// writes the fragment under key.
func (r *Record) Beside(key manifest.Key, epoch uint64) (osd.Update, error) {
	encoded, err := r.Append(nil)
	if err != nil {
		return osd.Update{}, err
	}
	return osd.Update{Key: key.AppendRecovery(nil), Value: Value(key, encoded, epoch)}, nil
}
