package main

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/trust"
)

// addCluster adds the flags by which a host is one of a cluster.
func (f *upFlags) addCluster(c *cobra.Command) {
	flags, o := c.Flags(), &f.Cluster
	flags.StringVar(&o.Listen, "listen", "", "`HOST:PORT` by which other hosts reach this one; the first time, this machine becomes the first host of a cluster (default: there is no cluster)")
	flags.StringSliceVar(&o.Storage, "storage-address", nil, "`HOST:PORT` by which other hosts reach this one with the traffic of storage; may be given again (default: that of --listen)")
	flags.StringVar(&o.Zone, "zone", "", "`zone` of this host: what fails together, such as a room")
	flags.StringVar(&o.Join, "join", "", "`TOKEN` of 'ovs host token', by which this host joins a cluster, or @FILE with it; needed at the first start, in an empty data directory")
	flags.StringVar(&o.PassphraseFile, "ca-passphrase-file", "", "`FILE` with the passphrase that the cluster's authority is sealed under, on the first host (default: one is made, in the data directory)")
	flags.StringVar(&o.PassphraseCommand, "ca-passphrase-command", "", "`command` line of /bin/sh that prints that passphrase")
	_ = c.MarkFlagFilename("ca-passphrase-file")
}

// checkCluster refuses flags of a cluster that do not go together, and reads the token.
func (f *upFlags) checkCluster(command string) error {
	o := &f.Cluster
	switch {
	case o.PassphraseFile != "" && o.PassphraseCommand != "":
		return usagef("%s: --ca-passphrase-file and --ca-passphrase-command say the same: give one", command)
	case o.Join != "" && (o.PassphraseFile != "" || o.PassphraseCommand != ""):
		return usagef("%s: a host that joins has no key of the authority: leave --ca-passphrase-file and --ca-passphrase-command out", command)
	}
	if err := f.CheckCluster(); err != nil {
		return usagef("%s: %w", command, err)
	}
	if o.Join == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(o.Join, "@"); ok {
		file, err := os.Open(name)
		if err != nil {
			return usagef("%s: --join: %w", command, err)
		}
		defer file.Close()
		line, err := io.ReadAll(io.LimitReader(file, 8<<10))
		if err != nil {
			return usagef("%s: --join: %w", command, err)
		}
		o.Join = string(line)
	}
	if _, err := trust.ParseToken(o.Join); err != nil {
		return usagef("%s: --join: %w", command, err)
	}
	return nil
}
