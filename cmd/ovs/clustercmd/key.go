package clustercmd

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"openvstorage/host"
	"openvstorage/internal/control"
)

// passphrase says where a command has a passphrase from.
type passphrase struct{ file, command string }

func (p *passphrase) add(c *cobra.Command) {
	c.Flags().StringVar(&p.file, "file", "", "`FILE` with the passphrase, which nobody else may read (default: it is asked for)")
	c.Flags().StringVar(&p.command, "command", "", "`command` line of /bin/sh that prints the passphrase")
	_ = c.MarkFlagFilename("file")
}

// read returns the passphrase. At a terminal it is asked for, twice if it is a new one.
func (p *passphrase) read(cmds Tools, c *cobra.Command, fresh bool) ([]byte, error) {
	if p.file != "" && p.command != "" {
		return nil, cmds.Usage("%s: --file and --command say the same: give one", c.CommandPath())
	}
	if p.file != "" || p.command != "" {
		return host.Passphrase(c.Context(), p.file, p.command)
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, cmds.Usage("%s: give --file or --command: there is no terminal to ask for the passphrase at", c.CommandPath())
	}
	text, err := prompt(c, "passphrase of the authority: ")
	if err != nil || !fresh {
		return text, err
	}
	again, err := prompt(c, "the same again: ")
	if err == nil && !bytes.Equal(text, again) {
		err = fmt.Errorf("the two are not the same: nothing was changed")
	}
	return text, err
}

func prompt(c *cobra.Command, what string) ([]byte, error) {
	fmt.Fprint(c.ErrOrStderr(), what)
	text, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(c.ErrOrStderr())
	return text, err
}

func (cmds caCommands) open() *cobra.Command {
	from, keep := passphrase{}, false
	c := &cobra.Command{
		Use:   "open [--file FILE | --command COMMAND]",
		Short: "open the authority's key in this host, which then signs certificates",
		Long: `ovs ca open gives the host that serves the data directory the passphrase of the cluster's
authority. From then on hosts join through it, and it renews and issues certificates,
until it stops. With --keep it does so after each start: the passphrase is kept in the
data directory, DIR/trust/passphrase. Have two hosts sign: if the only one is lost, and
nobody knows the passphrase, no host can join any more.

Where the first host has made the passphrase, it is there in its own file of that name.`,
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			text, err := from.read(cmds.Tools, c, false)
			if err != nil {
				return err
			}
			if err := control.OfHosts(client).OpenKey(c.Context(), text, keep); err != nil {
				return err
			}
			return cmds.Done("opened", "the authority's key")
		},
	}
	from.add(c)
	c.Flags().BoolVar(&keep, "keep", false, "keep the passphrase in the data directory, for the next starts")
	return c
}

func (cmds caCommands) reseal() *cobra.Command {
	from := passphrase{}
	c := &cobra.Command{
		Use:   "reseal [--file FILE | --command COMMAND]",
		Short: "seal the authority's key under another passphrase",
		Long: `ovs ca reseal seals the key of the cluster's authority under another passphrase, on a host
that signs. Hosts that have the key open go on. At their next start they need the new
passphrase: change what --ca-passphrase-file or --ca-passphrase-command say, or give it
by 'ovs ca open --keep'. A host that keeps the passphrase in its data directory, as the
first host does by itself, and that this is run on, has the new one there.

Copies of the older sealed key, in backups too, open with the older passphrase for ever.`,
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			text, err := from.read(cmds.Tools, c, true)
			if err != nil {
				return err
			}
			if err := control.OfHosts(client).Reseal(c.Context(), text); err != nil {
				return err
			}
			return cmds.Done("sealed anew", "the authority's key")
		},
	}
	from.add(c)
	return c
}
