package clustercmd

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

// hostCommands are the commands of `ovs host`: the hosts of a cluster.
type hostCommands struct{ Tools }

func (cmds hostCommands) group() *cobra.Command {
	return cmds.Group("host", "look at and change the hosts of a cluster", cmds.token(), cmds.list(), cmds.show(), cmds.drain(), cmds.maintenance(), cmds.roles(), cmds.address(), cmds.remove())
}

func (cmds hostCommands) token() *cobra.Command {
	roles := ""
	c := &cobra.Command{
		Use:   "token",
		Short: "make a token by which one host joins",
		Long: `ovs host token prints one line. Whoever has it can join one host within a day:
hand it over as a password. On the new host:

  ovs up --data DIR --listen HOST:PORT --join TOKEN

It names hosts that answer, of which one signs certificates at least ('ovs ca show' has
them). It is not shown again: 'ovs host token list' has its number, by which it is
withdrawn.`,
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			t, err := client.MakeToken(c.Context(), roles)
			if err != nil {
				return err
			}
			return cmds.Print(t, func(w io.Writer) { fmt.Fprintln(w, t.Line) })
		}),
	}
	c.Flags().StringVar(&roles, "roles", "", "`roles` of the host, divided by commas: driver, proxy, asd, arakoon, maintenance, dashboard (default all)")
	c.AddCommand(cmds.tokens(), cmds.withdraw())
	return c
}

func (cmds hostCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "list the hosts",
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			list, err := client.Hosts(c.Context(), "")
			if err != nil {
				return err
			}
			return cmds.Print(list, func(w io.Writer) { writeHosts(w, list) })
		}),
	}
}

func writeHosts(w io.Writer, list []control.ClusterHost) {
	fmt.Fprintln(w, "HOST\tSTATE\tCONNECTED\tADDRESS\tZONE\tMEMBERS\tROLES\tCERTIFICATE UNTIL\tNOTES")
	for _, h := range list {
		until := "none"
		if h.Until != nil {
			until = When(*h.Until)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.ID, h.State, connected(h), dash(strings.Join(h.Addresses, ",")), dash(h.Zone), dash(strings.Join(h.Members, ",")), h.Roles, until, dash(hostNotes(h)))
	}
}

func hostNotes(h control.ClusterHost) string {
	var notes []string
	if h.First {
		notes = append(notes, "first host")
	}
	if h.Self {
		notes = append(notes, "this host")
	}
	if h.InSync != "" {
		notes = append(notes, h.InSync)
	}
	if h.Signs {
		notes = append(notes, "signs")
	}
	switch {
	case h.Draining && len(h.Members) > 0:
		notes = append(notes, "draining")
	case h.Draining:
		notes = append(notes, "drained")
	}
	if h.Maintenance {
		notes = append(notes, "MAINTENANCE")
	}
	if h.Insecure {
		notes = append(notes, "INSECURE")
	}
	return strings.Join(notes, ", ")
}

// connected is whether a host is connected, in a word.
func connected(h control.ClusterHost) string {
	switch {
	case h.Connected == nil:
		return "unknown"
	case *h.Connected:
		return "yes"
	}
	return "no"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (cmds hostCommands) show() *cobra.Command {
	return &cobra.Command{
		Use:               "show HOST",
		Short:             "show one host, by its UUID or the beginning of it",
		Args:              cmds.Wants("HOST"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			list, err := client.Hosts(c.Context(), args[0])
			if err != nil {
				return err
			}
			return cmds.Print(list[0], func(w io.Writer) { writeHost(w, list[0]) })
		}),
	}
}

func writeHost(w io.Writer, h control.ClusterHost) {
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("host", "%s", h.ID)
	row("state", "%s since %s", h.State, When(h.Changed))
	row("joined", "%s", When(h.Joined))
	row("connected", "%s", connected(h))
	row("addresses", "%s", dash(strings.Join(h.Addresses, ", ")))
	row("storage addresses", "%s", dash(strings.Join(h.Storage, ", ")))
	row("zone", "%s", dash(h.Zone))
	row("members of groups", "%s", dash(strings.Join(h.Members, ", ")))
	row("roles", "%s", h.Roles)
	row("release", "%s", dash(h.Release))
	row("generation of its data directory", "%d", h.Generation)
	if h.Until != nil {
		row("certificate until", "%s", When(*h.Until))
	} else {
		row("certificate", "none that is good")
	}
	if notes := hostNotes(h); notes != "" {
		row("notes", "%s", notes)
	}
}

func (cmds hostCommands) remove() *cobra.Command {
	lost := false
	c := &cobra.Command{
		Use:   "remove HOST",
		Short: "end a host's membership for ever",
		Long: `ovs host remove ends a host's membership: its certificates are revoked, and no host
speaks with it any more. Its UUID is never used again; the machine joins anew with
an empty data directory. The members of groups on it go to other hosts first, and it
is refused where a group has no majority to go on with. A host that is not connected
is removed only with --lost, by which you say that it never comes back; its members
are then made anew on other hosts.`,
		Args:              cmds.Wants("HOST"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			h, err := client.RemoveHost(c.Context(), args[0], lost)
			if err != nil {
				return err
			}
			return cmds.Done("removed", h.ID.String())
		}),
	}
	c.Flags().BoolVar(&lost, "lost", false, "the host is lost, and never comes back")
	return c
}

// statusCommand is `ovs status`.
type statusCommand struct{ Tools }

func (cmd statusCommand) command() *cobra.Command {
	return &cobra.Command{
		Use:               "status",
		Short:             "show what serves the data directory, and what this host is in its cluster",
		Args:              cmd.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmd.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			s, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			return cmd.Print(s, func(w io.Writer) { writeSelf(w, s, time.Now()) })
		}),
	}
}

func writeSelf(w io.Writer, s control.Status, now time.Time) {
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("data directory", "%s", s.Data)
	row("served by", "process %d, release %s", s.PID, s.Release)
	h := s.Cluster
	if h == nil {
		row("cluster", "none: it was started without --listen")
		return
	}
	row("cluster", "%s", h.Cluster)
	row("host", "%s", h.Host)
	row("does", "%s", h.Does)
	row("groups", "%s", dash(strings.TrimPrefix(h.Groups, "groups: ")))
	row("address", "%s", h.Address)
	row("roles", "%s", h.Roles)
	if !h.First {
		linked := "yes"
		if !h.Linked {
			linked = "NO: it goes by what it has seen; its log says why"
		}
		row("connected to the others", "%s", linked)
	}
	switch {
	case h.Sealed:
		row("authority", "SEALED: this host signs nothing; `ovs ca open`, or start with the passphrase")
	case h.Signs:
		row("authority", "this host signs: others join through it")
	}
	if h.Draining {
		row("drained", "members of groups leave this host, or have left it, until `ovs host drain --undo`")
	}
	if h.Maintenance {
		row("MAINTENANCE", "its members of groups lead nothing and are not replaced, until `ovs host maintenance HOST off`")
	}
	if h.Insecure {
		row("INSECURE", "connections without TLS are taken: whoever reaches the address is the host that it says it is")
	}
	until := When(h.Until)
	if now.After(h.Until) {
		until += ": EXPIRED"
	}
	row("certificate until", "%s", until)
}
