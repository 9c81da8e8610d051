/* server/notice.h - the one wording of what this software is for: page, --version, model card,
 * README. It claims no use and names no rule of any country; tests/e2e/check_page.py compares the
 * places. */
#ifndef HG_SERVER_NOTICE_H
#define HG_SERVER_NOTICE_H

#define HG_NOTICE                                                                                  \
    "Research use only. Not a medical device. Not cleared or approved by any authority. "          \
    "Output must not be used for diagnosis or treatment."

#endif
