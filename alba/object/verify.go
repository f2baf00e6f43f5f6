package object

import (
	"fmt"

	"openvstorage/alba/ec"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/backend"
)

// Verify compares data, the bytes of a range, with the checksums that were stored
// beside them. It makes the seed from the manifest. So the bytes of another fragment do
// not pass, even together with their own checksums.
func Verify(m *manifest.Manifest, r Range, data []byte, crcs []uint32) error {
	if len(data) != int(r.Len) || len(crcs) != len(data)/align {
		return fmt.Errorf("%w: %d bytes and %d CRCs of fragment %v at %d; %d bytes were asked for",
			backend.ErrCorrupt, len(data), len(crcs), m.Key(r.Chunk, r.Fragment), r.Off, r.Len)
	}
	seed := manifest.Seed(m.Object, uint32(r.Chunk), uint32(r.Fragment))
	for i, want := range crcs {
		if got := osd.BlockCRC(seed, r.Off/align+uint32(i), data[i*align:(i+1)*align]); got != want {
			return fmt.Errorf("%w: fragment %v at %d: CRC is %08x, not %08x",
				backend.ErrCorrupt, m.Key(r.Chunk, r.Fragment), int(r.Off)+i*align, got, want)
		}
	}
	return nil
}

// VerifyFragment compares a whole fragment with the manifest.
func VerifyFragment(m *manifest.Manifest, chunk, fragment int, data []byte) error {
	f := m.Chunks[chunk].Fragments[fragment]
	if len(data) != int(f.Length) {
		return fmt.Errorf("%w: fragment %v has %d bytes, not %d", backend.ErrCorrupt, m.Key(chunk, fragment), len(data), f.Length)
	}
	var room [256]uint32 // 1 MiB of data
	crcs := osd.AppendCRCs(room[:0], manifest.Seed(m.Object, uint32(chunk), uint32(fragment)), 0, data)
	if got := osd.TableCRC(crcs); got != f.CRC {
		return fmt.Errorf("%w: fragment %v: CRC of its CRCs is %08x, not %08x", backend.ErrCorrupt, m.Key(chunk, fragment), got, f.CRC)
	}
	return nil
}

// Recover fills dst with the bytes of r, calculated from the same range of other
// fragments: parts[i] are the bytes of from[i]. The caller has verified the parts; dst
// is not checked against anything.
func Recover(dst []byte, m *manifest.Manifest, r Range, from []Range, parts [][]byte) error {
	code, err := ec.New(m.Scheme.Code, int(m.Policy.K), int(m.Policy.M))
	if err != nil {
		return err
	}
	if len(dst) != int(r.Len) || len(from) != len(parts) {
		return fmt.Errorf("%w: room for %d bytes of %d; %d parts of %d ranges", manifest.ErrManifest, len(dst), r.Len, len(parts), len(from))
	}
	shards := make([][]byte, code.Width())
	shards[r.Fragment] = dst[:0]
	for i, o := range from {
		if o.Chunk != r.Chunk || o.Off != r.Off || o.Fragment == r.Fragment || len(parts[i]) != int(r.Len) {
			return fmt.Errorf("%w: %d bytes of %+v in place of %+v", manifest.ErrManifest, len(parts[i]), o, r)
		}
		shards[o.Fragment] = parts[i]
	}
	return code.Reconstruct(shards, []int{r.Fragment})
}

// Repair makes a lost fragment again from k others. The caller has verified them; a
// shard that is not there is nil. Repair returns the fragment, which is bit for bit as it
// was, and the checksums of its blocks, which match the manifest.
func Repair(m *manifest.Manifest, chunk, fragment int, shards [][]byte) ([]byte, []uint32, error) {
	code, err := ec.New(m.Scheme.Code, int(m.Policy.K), int(m.Policy.M))
	if err != nil {
		return nil, nil, err
	}
	have := append([][]byte(nil), shards...)
	if fragment < len(have) {
		have[fragment] = nil
	}
	if err := code.Reconstruct(have, []int{fragment}); err != nil {
		return nil, nil, fmt.Errorf("fragment %v: %w", m.Key(chunk, fragment), err)
	}
	data := have[fragment]
	if err := VerifyFragment(m, chunk, fragment, data); err != nil {
		return nil, nil, fmt.Errorf("made again, it differs: one of the others is not what was stored: %w", err)
	}
	return data, osd.AppendCRCs(nil, manifest.Seed(m.Object, uint32(chunk), uint32(fragment)), 0, data), nil
}
