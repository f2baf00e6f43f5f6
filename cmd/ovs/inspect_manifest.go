package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/alba/manifest"
)

func (a *app) inspectManifest() *cobra.Command {
	raw := false
	c := &cobra.Command{
		Use:   "manifest FILE|NAMESPACE/OBJECT",
		Short: "verify and dump the manifest of an object, of a file or of the running ovs up",
		Long: `ovs inspect manifest verifies and dumps a manifest: which OSD has which fragment
of an object. It reads FILE if there is one; else it asks the running ovs up for
that of NAMESPACE/OBJECT, the namespace being named by its vDisk too.`,
		Example:           "  ovs inspect manifest disk1/sco-000000001\n  ovs inspect manifest disk1/catalog --raw > catalog.manifest",
		Args:              wants("FILE|NAMESPACE/OBJECT"),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := a.readManifest(c, args[0])
			if err != nil {
				return err
			}
			if raw {
				_, err := a.stdout.Write(b)
				return err
			}
			m, err := manifest.Decode(b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			dump := struct {
				*manifest.Manifest
				Object string // as people write it
			}{m, m.Object.String()}
			return a.print(dump, func(w io.Writer) { writeManifest(w, m, len(b)) })
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "write the manifest as it is, unverified")
	return c
}

// readManifest reads an encoded manifest.
func (a *app) readManifest(c *cobra.Command, from string) ([]byte, error) {
	f, err := os.Open(from)
	if err == nil {
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, manifest.EncodedMax+1))
		if len(b) > manifest.EncodedMax {
			return nil, fmt.Errorf("%s: larger than any manifest", from)
		}
		return b, err
	}
	// Names of vDisks may have slashes in them, names of objects may not.
	slash := strings.LastIndex(from, "/")
	if !errors.Is(err, os.ErrNotExist) || slash < 1 {
		return nil, err
	}
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	return client.Manifest(c.Context(), from[:slash], from[slash+1:])
}

func writeManifest(w io.Writer, m *manifest.Manifest, encoded int) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
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
