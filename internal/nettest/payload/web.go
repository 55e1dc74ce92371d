package payload

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// web is an HTTP server that answers with the Machine's id and the variable
// VERSION, which tells deploys apart. While the file named by -sick exists, it
// answers everything with "503 Service Unavailable".
//
//	web [-sick PATH] ADDRESS:PORT
func web(ctx context.Context, args []string, out io.Writer) error {
	var sick string
	rest, err := flags(args, 1, "ADDRESS:PORT", func(set *flag.FlagSet) {
		set.StringVar(&sick, "sick", "", "")
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", rest[0])
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(sick); sick != "" && err == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "%s %s", os.Getenv("FLY_MACHINE_ID"), os.Getenv("VERSION"))
	})}
	ended := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(ended)
		// What is under way is finished: a server that stops in good order.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = server.Shutdown(grace)
	})
	fmt.Fprintf(out, "serves http on %s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-ended // Serve returns when Shutdown begins
	return nil
}
