package clustercmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/host"
	"openvstorage/trust"
)

// AddUpFlags adds to `ovs up` the flags by which a host is one of a cluster.
func AddUpFlags(c *cobra.Command, o *host.Cluster) {
	flags := c.Flags()
	flags.StringVar(&o.Listen, "listen", "", "`HOST:PORT` by which other hosts reach this one; the first time, this machine becomes the first host of a cluster (default: there is no cluster)")
	flags.StringSliceVar(&o.Storage, "storage-address", nil, "`HOST:PORT` by which other hosts reach this one with the traffic of storage; may be given again (default: that of --listen)")
	flags.StringVar(&o.Zone, "zone", "", "`zone` of this host: what fails together, such as a room")
	flags.IntVar(&o.RequireZones, "require-zones", 0, "`number` of zones that must hold everything before it is answered, on the first host at its first start; ovs arakoon require-zones changes it (default: no requirement)")
	flags.StringVar(&o.Join, "join", "", "`TOKEN` of 'ovs host token', by which this host joins a cluster, or @FILE with it, which other users of this machine do not see; needed at the first start, in an empty data directory")
	flags.Var(roleSet{&o.Roles}, "roles", "`roles` of this host from its first start on, divided by commas: driver, proxy, asd, arakoon, maintenance, dashboard; of a host that joins, those of its token ('ovs host roles' changes them later; default all)")
	flags.StringVar(&o.PassphraseFile, "ca-passphrase-file", "", "`FILE` with the passphrase that the cluster's authority is sealed under: a host that has it signs certificates, and lets others join (default: the first host makes one, in the data directory; others do not sign)")
	flags.StringVar(&o.PassphraseCommand, "ca-passphrase-command", "", "`command` line of /bin/sh that prints that passphrase")
	_ = c.MarkFlagFilename("ca-passphrase-file")
}

// roleSet is a flag of roles.
type roleSet struct{ of *trust.Roles }

// String implements pflag.Value, as the methods below do.
func (r roleSet) String() string {
	if r.of == nil {
		return ""
	}
	return r.of.String()
}

func (r roleSet) Set(text string) (err error) {
	*r.of, err = trust.ParseRoles(text)
	return err
}

func (roleSet) Type() string { return "roles" }

// tokenFileMax bounds the file of a token in bytes.
const tokenFileMax = 8 << 10

// CheckUp refuses flags of a cluster that do not go together, and reads the token. What it
// returns is an error of usage.
func CheckUp(options *host.Options) error {
	o := &options.Cluster
	if o.PassphraseFile != "" && o.PassphraseCommand != "" {
		return errors.New("--ca-passphrase-file and --ca-passphrase-command say the same: give one")
	}
	if err := options.CheckCluster(); err != nil || o.Join == "" {
		return err
	}
	if name, ok := strings.CutPrefix(o.Join, "@"); ok {
		line, err := readToken(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // whether the token is needed, the data directory says
		}
		if err != nil {
			return fmt.Errorf("--join: %w", err)
		}
		o.Join = line
	}
	if _, err := trust.ParseToken(o.Join); err != nil {
		return fmt.Errorf("--join: %w", err)
	}
	return nil
}

func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := io.ReadAll(io.LimitReader(f, tokenFileMax))
	return string(line), err
}
