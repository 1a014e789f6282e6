// Command earlier stands for the earlier system: its producers, its relay and its consumers.
package main

import (
	"fmt"
	"os"
)

const usage = `Usage: earlier COMMAND [FLAGS]

  migrate   the player service's auto-migration
  produce   inserts events, and prints a line of JSON for each
  relay     the relay
  consume   a consumer of one topic, which prints a line of JSON for each message

Settings are in the environment, as the earlier system has them. 'earlier COMMAND -h' lists the flags.
`

func main() {
	commands := map[string]func([]string) error{
		"migrate": migrate,
		"produce": produce,
		"relay":   relayRows,
		"consume": consume,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "earlier:", err)
		os.Exit(1)
	}
}
