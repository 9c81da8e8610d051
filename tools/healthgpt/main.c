/* tools/healthgpt/main.c - healthgpt: the command-line twin of healthgptd, on the same library. */
#include <string.h>

#include "common/log.h"
#include "server/notice.h"
#include "server/process.h"
#include "server/version.h"
#include "tools/healthgpt/cli.h"
#include "tools/healthgpt/terminal.h"

static const struct hg_cli_command commands[] = {
    {"ask", "QUESTION", "ask about pictures; the answer streams to stdout",
     "  healthgpt ask --image chest.png \"Is there pneumonia?\"\n"
     "The answer is greedy unless --temperature is given.\n",
     hg_cli_ask},
    {"draw", "INSTRUCTION", "draw a picture and write it as PNG",
     "  healthgpt draw \"Draw a chest X-ray with pneumonia.\" -o xray.png\n"
     "  healthgpt draw --image in.png \"Reconstruct the image.\" -o out.png\n"
     "From text alone the picture is sampled at temperature 0.9, because greedy drawing knows one\n"
     "picture per prompt; with an image it is greedy. --temperature overrides both. The PNG says "
     "in\n"
     "its text chunks that it is synthetic. The path is printed.\n",
     hg_cli_draw},
    {"batch", "< in.jsonl > out.jsonl", "many requests through one model, decoded together",
     "One JSON object per line:\n"
     "  {\"id\":1,\"task\":\"ask\",\"images\":[\"a.png\"],\"question\":\"...\",\"max_tokens\":8,\n"
     "   \"top_logprobs\":20,\"temperature\":0,\"seed\":1,\"plugin\":\"none\"}\n"
     "  {\"id\":2,\"task\":\"draw\",\"images\":[],\"question\":\"Draw ...\",\"seed\":7,\n"
     "   \"output\":\"x.png\"}\n"
     "Answers come in the order of the input: "
     "{\"id\",\"text\",\"ids\",\"finish\",\"top_logprobs\"} or\n"
     "{\"id\",\"output\",\"indices\"}. A bad line yields {\"id\",\"error\"} and the rest goes "
     "on.\n",
     hg_cli_batch},
    {"inspect", "PATH", "what is in a model folder or a weight file, and what is missing",
     "  healthgpt inspect config/models/healthgpt-m3.json --weights /data/models\n"
     "Works on folders that are not complete, on card files and on single weight files "
     "(safetensors,\n"
     "torch). Names where missing pieces come from; nothing is downloaded.\n",
     hg_cli_inspect},
    {"tokenize", "[TEXT]", "text to token ids (stdin without TEXT)",
     "User text never yields added tokens unless --special is given. With --json-lines each line "
     "is\n"
     "a JSON string and becomes a JSON array of ids.\n",
     hg_cli_tokenize},
    {"detokenize", "[ID]...", "token ids to text (stdin without IDs)",
     "With --json-lines each line is a JSON array of ids and becomes a JSON string.\n",
     hg_cli_detokenize},
    {"bench", "", "tokens per second, prefill and decode",
     "Runs a text prompt of --prompt-tokens tokens and decodes --max-tokens tokens for 1 sequence\n"
     "and for --max-batch sequences together, or for each number of --batches. --plugins shows "
     "what\n"
     "H-LoRA costs. A step's floor is the bytes that it must read (weights, plug-ins in use, KV "
     "cache)\n"
     "at the rate at which this machine was just seen to read; the last column, and the bars of\n"
     "--plot, are the floor's share of the step.\n",
     hg_cli_bench},
    {"canary", "> canary.json", "what healthgptd compares its self-test with, for a model folder",
     "  healthgpt canary --model DIR > DIR/canary.json\n"
     "Checksum of the weights, and the first tokens of a few fixed requests with their log\n"
     "probabilities. With weights as stored: not for int8, fp8 or int4.\n",
     hg_cli_canary},
    {"audit", "verify FILE...", "is an audit log of healthgptd whole and unchanged?",
     "  healthgpt audit verify /var/log/healthgpt/audit.jsonl.1 /var/log/healthgpt/audit.jsonl\n"
     "Files of one chain, oldest first. Names the first line that is wrong (exit code 65). A "
     "chain\n"
     "alone cannot show that lines at its end are missing, or that all of it was written anew: "
     "give\n"
     "--anchor or --key-file (docs/audit.md).\n",
     hg_cli_audit},
    {"doctor", "", "what this machine, configuration and model folder lack; run it before asking",
     "  healthgpt doctor --model DIR --config /etc/healthgpt/config.json\n"
     "  healthgpt doctor --model config/models/healthgpt-m3.json --weights /data/models\n"
     "One line for each finding: ok, warn or FAIL, and what to do next. Headers are read, "
     "plug-ins\n"
     "are looked through for NaN, other weights in part; nothing is downloaded. --json is made to "
     "be pasted into an issue: no secrets, no values "
     "of\n"
     "the environment, no names of host or user, no paths but those that you typed.\n"
     "Exit code: 0 when nothing failed, else of the first FAIL: 64 configuration, 65 damaged file, "
     "66\n"
     "missing file, 69 port in use or not supported, 75 not enough memory.\n",
     hg_cli_doctor},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static int usage(FILE *to)
{
    fprintf(to, "usage: healthgpt COMMAND [options]\n"
                "Medical image questions and image generation. Not for clinical use.\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-11s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\nhealthgpt COMMAND --help explains one; --version prints the version.\n"
                "try: healthgpt draw \"Draw a chest X-ray with pneumonia.\" -o xray.png\n"
                "     healthgpt ask --image xray.png \"Is there pneumonia?\"\n");
    return to == stdout ? 0 : HG_CLI_USAGE;
}

static int help(const struct hg_cli_command *c)
{
    printf("usage: healthgpt %s [options]%s%s\n%s\n\n", c->name, *c->arguments ? " " : "",
           c->arguments, c->summary);
    hg_cli_print_options(c, stdout);
    printf("  %-22s %s\n\n%s", "--help", "this text", c->help);
    return 0;
}

int hg_cli_fail(const char *command, const struct hg_error *err)
{
    fflush(stdout);
    fprintf(stderr, "healthgpt %s: %s\n", command,
            err->text[0] ? err->text : hg_status_text(err->status));
    return hg_status_exit_code(err->status);
}

int hg_cli_usage_error(const char *command, const char *text)
{
    fprintf(stderr, "healthgpt %s: %s: see healthgpt %s --help\n", command, text, command);
    return HG_CLI_USAGE;
}

static const struct hg_cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* Is there an option `name` before "--"? */
static bool has_flag(int argc, char **argv, const char *name)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

static bool wants_help(int argc, char **argv)
{
    return has_flag(argc, argv, "--help") || has_flag(argc, argv, "-h");
}

static int unknown_command(const char *name)
{
    struct hg_error err;
    hg_fail(&err, HG_STATUS_BAD_REQUEST, "unknown command \"%.64s\": see healthgpt --help", name);
    fprintf(stderr, "healthgpt: %s\n", err.text);
    return HG_CLI_USAGE;
}

static int run(int argc, char **argv)
{
    struct hg_cli cli;
    struct hg_error err = {0};
    if (argc < 2)
        return usage(stderr);
    bool asks_help = strcmp(argv[1], "help") == 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (asks_help && argc == 2))
        return usage(stdout);
    if (has_flag(argc - 1, argv + 1, "--version")) {
        puts("healthgpt " HG_VERSION "\n" HG_NOTICE);
        return 0;
    }
    const struct hg_cli_command *command = find_command(argv[asks_help ? 2 : 1]);
    if (!command)
        return unknown_command(argv[asks_help ? 2 : 1]);
    if (asks_help || wants_help(argc - 2, argv + 2))
        return help(command);
    if (hg_cli_parse(command, argc - 2, argv + 2, &cli, &err) != HG_STATUS_OK)
        return hg_cli_fail(command->name, &err);
    hg_log_set(cli.verbose ? HG_LOG_INFO : HG_LOG_ERROR, 0);
    return command->run(&cli);
}

int main(int argc, char **argv)
{
    struct hg_error err = {0};
    hg_process_init("healthgpt");
    int code = run(argc, argv);
    if (hg_terminal_finish(&err) != HG_STATUS_OK) {
        if (err.text[0])
            fprintf(stderr, "healthgpt: %s\n", err.text);
        return hg_status_exit_code(HG_STATUS_IO);
    }
    if (code == hg_status_exit_code(HG_STATUS_DEVICE))
        hg_process_leave(code);
    return code;
}
