package inspect

import (
	"fmt"
	"io"
	"os"
	"time"

	"openvstorage/alba/manifest"
)

// ManifestFile reads an encoded manifest. It does not verify it.
func ManifestFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifest.EncodedMax+1))
	if len(b) > manifest.EncodedMax {
		return nil, fmt.Errorf("%s: larger than any manifest", file)
	}
	return b, err
}

// Manifest is a manifest as JSON shows it.
type Manifest struct {
	*manifest.Manifest
	Object string // as people write it

	encoded int // bytes
}

// DecodeManifest verifies an encoded manifest. from says in errors where it comes from.
func DecodeManifest(b []byte, from string) (Manifest, error) {
	m, err := manifest.Decode(b)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", from, err)
	}
	return Manifest{m, m.Object.String(), len(b)}, nil
}

// Write writes the manifest for people.
func (m Manifest) Write(w io.Writer) { writeManifest(w, m.Manifest, m.encoded) }

func writeManifest(w io.Writer, m *manifest.Manifest, encoded int) {
	row := table(w)
	row("object", "%s, in namespace %d", m.Name, m.Namespace)
	row("id", "%s", m.Object)
	row("manifest", "%d bytes, revision %d", encoded, m.Revision)
	row("size", "%s (%d bytes)", human(m.Size), m.Size)
	row("stored", "%s", human(m.StoredSize()))
	row("version", "%d", m.Version)
	row("put", "%s, in gc epoch %d", when(time.Unix(0, m.Time)), m.Epoch)
	row("policy", "%s", m.Policy)
	row("scheme", "code %d, compression %s, cipher %s, checksum %s, blocks of %d", m.Scheme.Code, m.Scheme.Compression, m.Scheme.Cipher, m.Scheme.Checksum, m.Scheme.BlockSize())
	if m.Inlined {
		row("inline", "%d bytes", len(m.Inline))
	}
	for i, c := range m.Chunks {
		row("chunk", "%d: %d bytes, stored as %d, shards of %d", i, c.Plain, c.Stored, c.Shard)
		for j, f := range c.Fragments {
			place := "on no disk yet"
			if f.OSD != 0 {
				place = fmt.Sprintf("on disk %d", f.OSD)
			}
			row("fragment", "%d/%d %s, %d bytes, CRC %08x, key %s", i, j, place, f.Length, f.CRC, m.Key(i, j))
		}
	}
}
