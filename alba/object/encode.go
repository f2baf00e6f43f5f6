package object

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klauspost/compress/s2"

	"openvstorage/alba/ec"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/format"
)

// Params are what fragments depend on besides the object's bytes.
type Params struct {
	Namespace uint64
	Object    manifest.ObjectID // drawn anew for every attempt to upload
	Policy    policy.Policy
	Scheme    preset.Scheme
	Master    []byte // master key, MasterKeySize bytes; nil with no cipher
}

// Coded is one chunk as it is stored. Its memory is reused when it is passed
// to an Encoder again.
type Coded struct {
	// Chunk is the manifest's record. Its fragments have length and CRC, and
	// no OSD yet. The slice is part of the reused memory.
	Chunk  manifest.Chunk
	Shards [][]byte   // k+m fragments, aligned to 4 KiB
	CRCs   [][]uint32 // the checksum of each 4 KiB of each

	buf  []byte
	crcs []uint32
}

// Encoder makes fragments. It is for one goroutine at a time.
type Encoder struct {
	p       Params
	code    *ec.Code
	sealer  sealer
	next    int      // the lowest chunk that may be encoded
	entries []uint32 // of the table
	packed  []byte   // a compressed block
	probe   probe
	table   []byte
}

// NewEncoder returns an encoder for an object.
func NewEncoder(p Params) (*Encoder, error) {
	e := new(Encoder)
	return e, e.Reset(p)
}

// Reset makes the encoder one for another object, with the scratch memory that
// it has. After an error it must be reset again before use.
func (e *Encoder) Reset(p Params) error {
	if err := p.Policy.Validate(); err != nil {
		return err
	}
	if err := p.Scheme.Validate(); err != nil {
		return err
	}
	if p.Object == (manifest.ObjectID{}) {
		return fmt.Errorf("%w: no object id", manifest.ErrManifest)
	}
	var err error
	if e.code, err = ec.New(p.Scheme.Code, int(p.Policy.K), int(p.Policy.M)); err != nil {
		return err
	}
	e.p, e.next = p, 0
	if n := s2.MaxEncodedLen(p.Scheme.BlockSize()); len(e.packed) < n {
		e.packed = make([]byte, n)
	}
	return e.sealer.init(p.Scheme, p.Namespace, p.Object, p.Master)
}

// Chunk makes the fragments of a chunk: 1 to preset.ChunkMax plain bytes. A chunk is
// encoded once for an object id, or a nonce would repeat; another attempt takes another
// id. So an encoder takes chunks in growing order only. Several encoders may divide the
// chunks of an object among them.
func (e *Encoder) Chunk(dst *Coded, index int, plain []byte) error {
	stored, err := e.body(dst, index, plain)
	if err != nil {
		return err
	}
	k, width := e.code.Data(), e.code.Width()
	shard := int(manifest.ShardLength(uint32(stored), k))
	clear(dst.buf[stored : k*shard])
	dst.Chunk.Shard = uint32(shard)
	dst.Shards = ec.Cut(dst.Shards[:0], dst.buf, width, shard, shard)
	if err := e.code.Encode(dst.Shards); err != nil {
		return err
	}
	e.sums(dst, uint32(index))
	return nil
}

// sums makes the checksums of all fragments.
func (e *Encoder) sums(dst *Coded, index uint32) {
	blocks := int(dst.Chunk.Shard) / manifest.ShardAlign
	dst.crcs = slices.Grow(dst.crcs[:0], blocks*len(dst.Shards))
	dst.CRCs, dst.Chunk.Fragments = dst.CRCs[:0], dst.Chunk.Fragments[:0]
	for i, shard := range dst.Shards {
		from := len(dst.crcs)
		dst.crcs = osd.AppendCRCs(dst.crcs, manifest.Seed(e.p.Object, index, uint32(i)), 0, shard)
		table := dst.crcs[from:len(dst.crcs):len(dst.crcs)]
		dst.CRCs = append(dst.CRCs, table)
		dst.Chunk.Fragments = append(dst.Chunk.Fragments, manifest.Fragment{Length: dst.Chunk.Shard, CRC: osd.TableCRC(table)})
	}
}

// Inline makes the stored bytes of an object that stays in its manifest, and
// enters them there with the encoder's parameters. It encodes chunk 0. plain has at most manifest.InlineLimit bytes.
func (e *Encoder) Inline(m *manifest.Manifest, plain []byte) error {
	if len(plain) > manifest.InlineLimit {
		return fmt.Errorf("%w: %d bytes inline; at most %d", manifest.ErrManifest, len(plain), manifest.InlineLimit)
	}
	m.Namespace, m.Object, m.Policy, m.Scheme = e.p.Namespace, e.p.Object, e.p.Policy, e.p.Scheme
	m.Inlined, m.Size, m.Chunks, m.Inline, m.CRCs = true, uint64(len(plain)), nil, nil, nil
	if len(plain) == 0 {
		return nil
	}
	var c Coded
	n, err := e.body(&c, 0, plain)
	if err != nil {
		return err
	}
	m.Inline = slices.Clone(c.buf[:n])
	m.Chunks = []manifest.Chunk{c.Chunk}
	m.CRCs = osd.AppendCRCs(nil, manifest.Seed(m.Object, 0, manifest.InlineFragment), 0, m.Inline)
	return nil
}

// body writes the stored bytes of a chunk to the start of dst.buf, which has
// room for all its shards, and returns their number.
func (e *Encoder) body(dst *Coded, index int, plain []byte) (int, error) {
	if len(plain) == 0 || len(plain) > preset.ChunkMax || index < 0 || index >= manifest.MaxChunks {
		return 0, fmt.Errorf("%w: chunk %d of %d bytes", manifest.ErrManifest, index, len(plain))
	}
	if index < e.next {
		return 0, fmt.Errorf("%w: chunk %d of object %v was encoded, or a later one; another attempt takes another object id",
			manifest.ErrManifest, index, e.p.Object)
	}
	e.next = index + 1
	size := e.p.Scheme.BlockSize()
	blocks := manifest.Blocks(uint32(len(plain)), e.p.Scheme.BlockLog2)
	most := manifest.DenseLength(uint32(len(plain)), e.p.Scheme) + manifest.TableLength(blocks, e.sealer.aead != nil)
	room := int(manifest.ShardLength(most, e.code.Data())) * e.code.Width()
	if cap(dst.buf) < room {
		dst.buf = ec.Buffer(room)
	}
	dst.buf = dst.buf[:room]
	out := dst.buf[:0]
	e.entries, e.probe = e.entries[:0], probe{}
	dense := true
	for i := range blocks {
		block := plain[i*size : min((i+1)*size, len(plain))]
		from := len(out)
		var kind byte
		out, kind = e.block(out, block, uint32(index), uint32(i))
		dense = dense && kind == kindRaw
		e.entries = append(e.entries, uint32(kind)<<24|uint32(len(out)-from))
	}
	if !dense {
		out = e.appendTable(out, uint32(index))
	}
	dst.Chunk = manifest.Chunk{Plain: uint32(len(plain)), Stored: uint32(len(out)), Dense: dense, Fragments: dst.Chunk.Fragments}
	return len(out), nil
}

// block appends a block as it is stored.
func (e *Encoder) block(out, p []byte, chunk, block uint32) ([]byte, byte) {
	if allZero(p) {
		return out, kindZero
	}
	if e.p.Scheme.Compression == preset.CompressionS2 && e.probe.worth() {
		takeTurn()
		packed := s2.Encode(e.packed, p)
		endTurn()
		packs := len(packed) <= packedWorth(len(p))
		e.probe.found(packs)
		if packs {
			return e.sealer.seal(out, packed, chunk, block, kindCompressed, len(p)), kindCompressed
		}
	}
	return e.sealer.seal(out, p, chunk, block, kindRaw, len(p)), kindRaw
}

// probe decides for which blocks of a chunk compression is tried. A failed try costs
// as much as a good one, and data that does not compress (films, archives, what the
// guest encrypts) comes in long runs. So after each failed try some blocks are left
// raw, twice as many each time.
type probe struct{ skip, next int }

// probeMax is how many blocks are left out at most.
const probeMax = 16

func (t *probe) worth() bool {
	if t.skip == 0 {
		return true
	}
	t.skip--
	return false
}

func (t *probe) found(packs bool) {
	if packs {
		t.next = 0
		return
	}
	t.skip, t.next = t.next, min(max(1, 2*t.next), probeMax)
}

// packedWorth is the most bytes that a compressed block may have to be kept: an eighth
// less than plain, as in ZFS and Ceph. A smaller saving costs more time at each write
// and read than the disk space is worth.
func packedWorth(plain int) int { return plain - (plain+7)/8 }

// packedMax is the most bytes that a compressed block has by the format.
func packedMax(plain int) int { return plain - (plain+15)/16 }

// allZero compares p with itself, one byte further.
func allZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) }

// appendTable appends the table of e.entries.
func (e *Encoder) appendTable(out []byte, chunk uint32) []byte {
	e.table = e.table[:0]
	for _, entry := range e.entries {
		e.table = binary.LittleEndian.AppendUint32(e.table, entry)
	}
	crc := format.SeededCRC(manifest.Seed(e.p.Object, chunk, tableFragment), e.table)
	e.table = binary.LittleEndian.AppendUint32(e.table, crc)
	return e.sealer.seal(out, e.table, chunk, tableBlock, kindTable, len(e.table))
}
