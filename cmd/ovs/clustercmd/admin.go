package clustercmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds hostCommands) tokens() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "list the tokens on record",
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			list, err := control.OfHosts(client).Tokens(c.Context())
			if err != nil {
				return err
			}
			return cmds.Print(list, func(w io.Writer) {
				fmt.Fprintln(w, "TOKEN\tSTATE\tROLES\tEXPIRES\tUSED BY\tMADE BY")
				for _, t := range list {
					by := "-"
					if t.UsedBy != nil {
						by = t.UsedBy.String()
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.State, t.Roles, When(t.Expires), by, dash(t.By))
				}
			})
		}),
	}
}

func (cmds hostCommands) withdraw() *cobra.Command {
	return &cobra.Command{
		Use:   "withdraw TOKEN",
		Short: "end a token, by its number in the list or the beginning of it",
		Long: `ovs host token withdraw ends a token that was not used: nobody joins with it any more. One that
was used is good for nobody, and is refused by the name of the host that has joined with it,
which 'ovs host remove' takes out of the cluster.`,
		Args:              cmds.Wants("TOKEN"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			id, err := control.OfHosts(client).WithdrawToken(c.Context(), args[0])
			if err != nil {
				return err
			}
			return cmds.Done("withdrawn", id)
		}),
	}
}

func (cmds hostCommands) roles() *cobra.Command {
	return &cobra.Command{
		Use:   "roles HOST ROLE,ROLE...",
		Short: "change what a host does: all roles that it is to have",
		Long: `ovs host roles changes the roles of a host: driver, proxy, asd, arakoon, maintenance,
dashboard. What is taken away holds at once, on every host within seconds; the host asks
for a certificate with its new roles by itself. A host that loses the role arakoon gives
its members of groups away first. In this release the roles of disks and vDisks matter to
the first host alone, which needs them all.`,
		Args:              cmds.Wants("HOST", "ROLES"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			h, err := control.OfHosts(client).SetRoles(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return cmds.Done("roles "+h.Roles, h.ID.String())
		}),
	}
}

func (cmds hostCommands) drain() *cobra.Command {
	undo := false
	c := &cobra.Command{
		Use:   "drain HOST",
		Short: "have all members of groups leave a host, which stays one of the cluster",
		Long: `ovs host drain has the members of groups on a host made elsewhere, says how many have left,
and returns when all have. If it is interrupted they go on leaving. The host gets no
members again before 'ovs host drain HOST --undo'.`,
		Args:              cmds.Wants("HOST"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			said := int64(-1)
			h, err := control.OfHosts(client).Drain(c.Context(), args[0], undo, func(done, total int64) {
				if total > 0 && done != said {
					said = done
					fmt.Fprintf(c.ErrOrStderr(), "%d of %d members have left\n", done, total)
				}
			})
			if err != nil {
				return err
			}
			if undo {
				return cmds.Done("no longer drained", h.ID.String())
			}
			return cmds.Done("drained", h.ID.String())
		}),
	}
	c.Flags().BoolVar(&undo, "undo", false, "let members be on the host again")
	return c
}

func (cmds hostCommands) maintenance() *cobra.Command {
	return &cobra.Command{
		Use:   "maintenance HOST on|off",
		Short: "say that a person works on a host, which may be off meanwhile",
		Long: `ovs host maintenance HOST on moves what is led there to other hosts, and sees to it that it
stays so. The members of groups on it stay, nobody replaces them, and the host gets no
others. It is refused, by the name of a group, where that would have no majority without
the host, and without those that are away or in maintenance already. It lasts until
'ovs host maintenance HOST off', over starts of any host.`,
		Args:      cmds.Wants("HOST", "on|off"),
		ValidArgs: []string{"on", "off"},
		RunE: func(c *cobra.Command, args []string) error {
			if args[1] != "on" && args[1] != "off" {
				return cmds.Usage("%s: %q: give on or off", c.CommandPath(), args[1])
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			h, err := control.OfHosts(client).Maintain(c.Context(), args[0], args[1] == "on")
			if err != nil {
				return err
			}
			return cmds.Done("maintenance "+args[1], h.ID.String())
		},
	}
}

func (cmds hostCommands) address() *cobra.Command {
	return &cobra.Command{
		Use:   "address HOST HOST:PORT",
		Short: "say where a host is that moved and cannot say so itself",
		Long: `ovs host address changes where the others look for a host that does not answer. A host that
runs is told by --listen where it is, and tells the others; it does so at each start, so
this is needed only where it does not find them.`,
		Args:              cmds.Wants("HOST", "HOST:PORT"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			h, err := control.OfHosts(client).SetAddress(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return cmds.Done("address "+args[1], h.ID.String())
		}),
	}
}
